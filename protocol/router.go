package protocol

import (
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrRoute says that a route table is wrong: a key twice, unknown, or with a
// version range that kmsg does not have.
var ErrRoute = errors.New("invalid route")

// Route serves one Kafka API in a range of versions, both ends included.
type Route struct {
	Key        int16
	MinVersion int16
	MaxVersion int16
	Handle     HandlerFunc
}

// Router is the one table of what is served: dispatch, version check and the
// answer to ApiVersions all read it. It is immutable and safe for concurrent use.
type Router struct {
	entries []*entry // by key; nil where nothing is served

	supported []kmsg.ApiVersionsResponseApiKey // what ApiVersions advertises
	hook      func(*kmsg.ApiVersionsRequest, *kmsg.ApiVersionsResponse)
}

// entry is a route with what was derived from it.
type entry struct {
	Route
	layouts []*layout // by version, from MinVersion
}

// RouterOption changes a Router as it is made.
type RouterOption func(*Router)

// WithApiVersionsHook has hook complete every ApiVersions answer that carries no
// error: with features (KIP-584), or with an error where the cluster and node
// that a v5 request expects (KIP-1242) are not these. hook must be safe for
// concurrent use and must not change ApiKeys.
func WithApiVersionsHook(hook func(*kmsg.ApiVersionsRequest, *kmsg.ApiVersionsResponse)) RouterOption {
	return func(r *Router) { r.hook = hook }
}

// NewRouter makes a router of routes and of ApiVersions, which it serves itself
// in all versions. Errors are [ErrRoute].
func NewRouter(routes []Route, opts ...RouterOption) (*Router, error) {
	r := &Router{entries: make([]*entry, kmsg.MaxKey+1)}
	for _, opt := range opts {
		opt(r)
	}
	own := Route{Key: keyApiVersions, MaxVersion: new(kmsg.ApiVersionsRequest).MaxVersion(), Handle: r.apiVersions}
	for _, route := range append(slices.Clone(routes), own) {
		if err := r.add(route); err != nil {
			return nil, err
		}
	}
	for _, e := range r.entries {
		if e == nil {
			continue
		}
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = e.Key, e.MinVersion, e.MaxVersion
		r.supported = append(r.supported, k)
	}
	return r, nil
}

func (r *Router) add(route Route) error {
	body := kmsg.RequestForKey(route.Key)
	switch {
	case body == nil:
		return fmt.Errorf("%w: key %d is no Kafka API", ErrRoute, route.Key)
	case r.entries[route.Key] != nil:
		return fmt.Errorf("%w: %s is there twice", ErrRoute, kmsg.NameForKey(route.Key))
	case route.MinVersion < 0 || route.MinVersion > route.MaxVersion || route.MaxVersion > body.MaxVersion():
		return fmt.Errorf("%w: %s v%d to v%d: kmsg has v0 to v%d", ErrRoute,
			kmsg.NameForKey(route.Key), route.MinVersion, route.MaxVersion, body.MaxVersion())
	case route.Handle == nil:
		return fmt.Errorf("%w: %s has no handler", ErrRoute, kmsg.NameForKey(route.Key))
	}
	e := &entry{Route: route}
	for v := route.MinVersion; v <= route.MaxVersion; v++ {
		l, err := layoutOf(route.Key, v)
		if err != nil {
			return fmt.Errorf("%w: %s v%d: %w", ErrRoute, kmsg.NameForKey(route.Key), v, err)
		}
		e.layouts = append(e.layouts, l)
	}
	r.entries[route.Key] = e
	return nil
}

// find returns what serves key, nil if nothing does.
func (r *Router) find(key int16) *entry {
	if key < 0 || int(key) >= len(r.entries) {
		return nil
	}
	return r.entries[key]
}

func (e *entry) serves(version int16) bool {
	return version >= e.MinVersion && version <= e.MaxVersion
}

// decode fills req's fields of the wire from a frame and returns the handler for
// it. req.ClientID may be what the client id probably is, to save a copy. room is
// called before the body is decoded into that many bytes of Go values.
func (r *Router) decode(frame []byte, req *Request, room func(decoded int) *closeError) (HandlerFunc, *closeError) {
	h, err := parseHeader(frame)
	if err != nil {
		return nil, closing(closeBadRequest, err)
	}
	e := r.find(h.key)
	if e == nil {
		return nil, closing(closeUnsupported, fmt.Errorf("API key %d (%s) is not served", h.key, kmsg.NameForKey(h.key)))
	}
	req.Key, req.Version, req.CorrelationID, req.Size = h.key, h.version, h.correlationID, len(frame)
	req.Body = kmsg.RequestForKey(h.key)
	if !e.serves(h.version) {
		if h.key == keyApiVersions {
			req.Version = 0 // what the answer is encoded as
			return r.apiVersionsFallback, nil
		}
		return nil, closing(closeUnsupported, fmt.Errorf("%s v%d is not served, only v%d to v%d",
			kmsg.NameForKey(h.key), h.version, e.MinVersion, e.MaxVersion))
	}
	req.Body.SetVersion(h.version)
	clientID, body, err := h.rest(req.Body.IsFlexible())
	if err != nil {
		return nil, closing(closeBadRequest, fmt.Errorf("%s v%d: %w", kmsg.NameForKey(h.key), h.version, err))
	}
	if req.ClientID != string(clientID) {
		req.ClientID = string(clientID)
	}
	_, decoded, err := e.layouts[h.version-e.MinVersion].check(body)
	if err != nil {
		return nil, closing(closeBadRequest, fmt.Errorf("%s v%d: %w", kmsg.NameForKey(h.key), h.version, err))
	}
	if err := room(decoded); err != nil {
		return nil, err
	}
	if err := req.Body.ReadFrom(body); err != nil {
		return nil, closing(closeBadRequest, fmt.Errorf("decode %s v%d: %w", kmsg.NameForKey(h.key), h.version, err))
	}
	return e.Handle, nil
}
