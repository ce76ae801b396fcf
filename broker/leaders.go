package broker

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// leaderHints names the leaders of partitions that this agent does not lead
// (KIP-951). They are the ones that Metadata names, from a fresh view: two
// answers that disagree make clients bounce.
type leaderHints struct {
	view *topology.Snapshot
	self int32
	seen map[int32]metadata.Agent
}

type leaderHint struct {
	node, epoch int32
}

func (b *Broker) leaderHints(ctx context.Context) *leaderHints {
	return &leaderHints{view: b.view(ctx), self: b.NodeID, seen: map[int32]metadata.Agent{}}
}

// leader returns the hint for a partition. There is none where the view names
// this agent itself: a dead holder's lease that has not ended yet.
func (h *leaderHints) leader(k lease.Key) (leaderHint, bool) {
	a, epoch, ok := h.view.Leader(k)
	if !ok || a.NodeID == h.self {
		return leaderHint{}, false
	}
	h.seen[a.NodeID] = a
	return leaderHint{a.NodeID, epoch}, true
}

// named returns the agents that were named, by node id.
func (h *leaderHints) named() []metadata.Agent {
	return slices.SortedFunc(maps.Values(h.seen), func(a, b metadata.Agent) int { return cmp.Compare(a.NodeID, b.NodeID) })
}
