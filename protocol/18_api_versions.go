package protocol

import (
	"context"
	"regexp"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ApiVersions (key 18), v0 to v5
//
// v0-v2: the keys. v3: client software name and version (KIP-511), features
// (KIP-584). v4: features may have a minimum of 0 (KIP-1022). v5: the cluster and
// the node that the client expects (KIP-1242), which the router's hook checks.
//
// A version that is not served is answered in v0 with UNSUPPORTED_VERSION and the
// range of key 18 alone, and the client asks again (KIP-511). Its response header
// is v0 in all versions, as the client can't know what the broker speaks yet.

const keyApiVersions = 18

// clientSoftware is what a name or a version must match (KIP-511).
var clientSoftware = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

func (r *Router) apiVersions(_ context.Context, req *Request) Reply {
	in := req.Body.(*kmsg.ApiVersionsRequest)
	out := in.ResponseKind().(*kmsg.ApiVersionsResponse)
	if !validApiVersions(in) {
		out.ErrorCode = kerr.InvalidRequest.Code
		return Now(out)
	}
	if in.Version >= 3 {
		info := *req.Conn
		info.ClientSoftwareName, info.ClientSoftwareVersion = in.ClientSoftwareName, in.ClientSoftwareVersion
		req.Conn = &info // the connection's later requests carry it too
	}
	out.ApiKeys = r.supported // shared: encoded only
	if r.hook != nil {
		r.hook(in, out)
	}
	return Now(out)
}

func validApiVersions(in *kmsg.ApiVersionsRequest) bool {
	if in.Version >= 3 && !(clientSoftware.MatchString(in.ClientSoftwareName) && clientSoftware.MatchString(in.ClientSoftwareVersion)) {
		return false
	}
	// A client that knows its cluster knows its node, and the other way round.
	return in.Version < 5 || (in.ClusterID != nil) == (in.NodeID != -1)
}

func (r *Router) apiVersionsFallback(context.Context, *Request) Reply {
	out := kmsg.NewPtrApiVersionsResponse()
	out.ErrorCode = kerr.UnsupportedVersion.Code
	own := r.find(keyApiVersions)
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = own.Key, own.MinVersion, own.MaxVersion
	out.ApiKeys = append(out.ApiKeys, k)
	return Now(out)
}
