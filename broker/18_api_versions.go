package broker

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ApiVersions, v0 to v5, is the router's own; this completes its answers. From
// v5 on (KIP-1242) a client says which cluster and node it means to talk to,
// and learns at once if an address was given to another one, or if the agent can
// do nothing for it: peers take that for a reason to look whether it is dead.
func (b *Broker) ApiVersions(r *kmsg.ApiVersionsRequest, resp *kmsg.ApiVersionsResponse) {
	if r.Version < 5 || r.ClusterID == nil {
		return
	}
	if *r.ClusterID != b.Topology.Snapshot().ClusterID || r.NodeID != b.NodeID {
		resp.ErrorCode = kerr.RebootstrapRequired.Code
		b.Log.Info("client reached another node than it meant", "cluster", *r.ClusterID, "node", strconv.Itoa(int(r.NodeID)))
	}
	if b.CutOff() {
		resp.ErrorCode = kerr.RebootstrapRequired.Code
	}
}
