package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

// Handlers are what an agent does for others. They are called concurrently, and their
// contexts end when the caller does not wait any more. What has no handler is refused.
type Handlers struct {
	// Commit is metadata.Committer's, for objects that the caller has uploaded.
	Commit func(ctx context.Context, from metadata.Agent, c *metadata.Commit) ([][]metadata.CommitResult, error)
	// Feed begins to tell the caller of growth.
	Feed func(from metadata.Agent) Feed
	// Block returns the bytes [from, to) of an object of size bytes. They are not
	// changed, and not kept when the call has been answered.
	Block func(ctx context.Context, object segment.ID, size, from, to int64) ([]byte, error)
}

// Feed is what one follower hears. Want and Next are called concurrently, Close once
// and last.
type Feed interface {
	// Want changes what is told of.
	Want(add, drop []lease.Key)
	// Next waits for news until ctx ends, which is none. It returns what there is
	// when it is called, so that a slow follower hears of later growth at once. Any
	// error but that of ctx ends the stream.
	Next(ctx context.Context) ([]metadata.Growth, error)
	Close()
}

// Server answers other agents.
type Server struct {
	cfg      Config
	self     metadata.Agent
	cluster  Cluster
	identity Identity
	handlers Handlers
	metrics  *Metrics
	log      *slog.Logger
	limits   limits
	complain func(address string)
}

// NewServer makes the server of the agent self, as it is registered.
func NewServer(cfg Config, self metadata.Agent, cluster Cluster, id Identity, h Handlers, m *Metrics, log *slog.Logger) *Server {
	s := &Server{cfg: cfg, self: self, cluster: cluster, identity: id, handlers: h, metrics: m, log: log}
	var last time.Time
	var mu sync.Mutex
	s.complain = func(address string) {
		m.strangers.Inc()
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); last.IsZero() || now.Sub(last) >= complaintPause {
			last = now
			log.Warn("refused a peer: it does not have this cluster's secret or certificates; check peer.secret and peer.tls_* of all agents", "from", address)
		}
	}
	return s
}

// Serve answers calls on l until ctx ends, closes l, and returns nil then.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	counted := &listener{Listener: l, meter: &meter{s.metrics, &s.cfg}}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	base := tlsConfig(s.identity, nil)
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return tlsConfig(s.identity, func() { s.complain(hello.Conn.RemoteAddr().String()) }), nil
	}
	var busy activity
	server := &http.Server{
		Handler: s.routes(), TLSConfig: base, Protocols: &protocols,
		ReadHeaderTimeout: dialTimeout, IdleTimeout: 2 * idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // of single connections
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreamsOfPeer, MaxReadFrameSize: http2FrameBytes,
			SendPingTimeout: 2 * quietUntilPing, PingTimeout: pingAnswerWithin, WriteByteTimeout: writeTimeout,
		},
		ConnState:   busy.note,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if over, ok := c.(*tls.Conn); ok {
				c = over.NetConn()
			}
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		closing, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		busy.whenQuiet(func() { time.AfterFunc(flushTime, cancel) })
		_ = server.Shutdown(closing) // which would wait for clients to close
		_ = server.Close()
		counted.conns.close()
	})
	err := server.ServeTLS(counted, "", "")
	if !stop() {
		<-stopped
		return nil
	}
	_ = server.Close()
	counted.conns.close()
	return err
}

// activity knows which connections have open streams.
type activity struct {
	mu     sync.Mutex
	active map[net.Conn]struct{}
	quiet  func() // called once there are none; nil if nobody waits for it
}

// note is a hook for changes of a connection.
func (a *activity) note(c net.Conn, state http.ConnState) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.active == nil {
		a.active = make(map[net.Conn]struct{})
	}
	if state == http.StateActive {
		a.active[c] = struct{}{}
	} else {
		delete(a.active, c)
	}
	a.tell()
}

// whenQuiet has f called once no stream is open.
func (a *activity) whenQuiet(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.quiet = f
	a.tell()
}

func (a *activity) tell() {
	if a.quiet != nil && len(a.active) == 0 {
		a.quiet()
		a.quiet = nil
	}
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// routes has one handler for each call.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+commitPath, s.route(kindCommit, s.handlers.Commit != nil, s.commit))
	mux.Handle("POST "+followPath, s.route(kindFollow, s.handlers.Feed != nil, s.follow))
	mux.Handle("GET "+blockPath+"{id}", s.route(kindBlock, s.handlers.Block != nil, s.block))
	mux.Handle("GET "+pingPath, s.route(kindPing, true, func(answer, *http.Request, metadata.Agent) string { return resultOK }))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { answer{w}.refuse(refusedPath) })
	return mux
}

// answer is where a call is answered.
type answer struct{ http.ResponseWriter }

// refuse says that nothing was done, and that nothing will be.
func (a answer) refuse(reason string) string {
	a.Header()[refusedHeader] = []string{reason}
	a.WriteHeader(http.StatusServiceUnavailable)
	return resultRefused
}

// reply answers a call that was done. A caller that does not take the answer in time is
// as good as gone.
func (a answer) reply(b []byte) string {
	a.Header()["Content-Length"] = []string{strconv.Itoa(len(b))}
	err := http.NewResponseController(a.ResponseWriter).SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		_, err = a.Write(b)
	}
	if err != nil {
		return resultCanceled
	}
	return resultOK
}

// fail tells the end of a call that is in doubt.
func (a answer) fail(err error) string {
	a.WriteHeader(http.StatusInternalServerError)
	text := err.Error()
	_, _ = a.Write([]byte(text[:min(len(text), maxErrorTextBytes)])) // or the caller is gone
	return resultUnknown
}

// route checks who calls whom, and how much at a time, before a call is handled.
// handle returns the call's result, and is not called unless there is a handler.
func (s *Server) route(kind string, handled bool, handle func(w answer, r *http.Request, from metadata.Agent) string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := answer{rw}
		h := w.Header()
		h[revisionHeader] = []string{revision}
		h["Date"], h["Content-Type"] = nil, nil // which net/http would add
		from, refusal := s.admit(r)
		if refusal == "" && !handled {
			refusal = refusedPath
		}
		if refusal == "" && !s.limits.enter(kind, from.Session) {
			refusal = refusedBusy
		}
		if refusal != "" {
			w.refuse(refusal)
			s.metrics.served.WithLabelValues(kind, resultRefused).Inc()
			return
		}
		defer s.limits.leave(kind, from.Session)
		s.metrics.inFlight.WithLabelValues(kind).Inc()
		defer s.metrics.inFlight.WithLabelValues(kind).Dec()
		result := handle(w, r, from)
		if r.Context().Err() != nil {
			result = resultCanceled
		}
		s.metrics.served.WithLabelValues(kind, result).Inc()
	})
}

// admit finds out who calls, and why not if it is refused.
func (s *Server) admit(r *http.Request) (from metadata.Agent, refusal string) {
	if r.Header.Get(revisionHeader) == "" {
		return from, refusedRevision
	}
	id, session, err := caller(r.Header)
	if err != nil {
		return from, refusedMalformed
	}
	if r.Header.Get(toHeader) != s.self.Session.String() {
		return from, refusedMistaken
	}
	from, ok := s.cluster.Agent(id)
	if !ok || from.Session != session {
		if err := s.cluster.Refresh(r.Context()); err != nil {
			s.log.Debug("cannot look for a peer that calls", "peer", id, "error", err)
		}
		if from, ok = s.cluster.Agent(id); !ok || from.Session != session {
			return from, refusedStranger
		}
	}
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		c.attribute(from.Zone)
	}
	return from, ""
}

// limits bound the calls that are answered at a time.
type limits struct {
	mu    sync.Mutex
	inAll map[string]int // by kind
	of    map[caseOf]int
}

// caseOf is a peer's calls of one kind.
type caseOf struct {
	kind string
	peer uuid.UUID
}

// enter takes a place; false if there is none.
func (l *limits) enter(kind string, peer uuid.UUID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := caseOf{kind, peer}
	if l.inAll[kind] >= maxCallsInAll || l.of[k] >= maxCallsOfPeer {
		return false
	}
	if l.of == nil {
		l.inAll, l.of = make(map[string]int), make(map[caseOf]int)
	}
	l.inAll[kind]++
	l.of[k]++
	return true
}

// leave gives it back.
func (l *limits) leave(kind string, peer uuid.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := caseOf{kind, peer}
	l.inAll[kind]--
	if l.of[k]--; l.of[k] == 0 {
		delete(l.of, k)
	}
}

// isDefinite says whether an error of a handler means that nothing was done.
func isDefinite(err error) bool {
	return errors.Is(err, metadata.ErrUnavailable) && !errors.Is(err, metadata.ErrUnknownOutcome)
}
