package broker

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// leaderHints names the leaders of partitions that this agent does not lead
// (KIP-951), in one request. They are the ones that Metadata names to the same client:
// two answers that disagree make clients bounce.
type leaderHints struct {
	b         *Broker
	ctx       context.Context
	zone      string // the client's
	view      *topology.Snapshot
	fit       bool // the view is fit to be shown to clients
	refreshed bool
	seen      map[int32]metadata.Agent
}

type leaderHint struct {
	node, epoch int32
}

func (b *Broker) leaderHints(ctx context.Context, zone string) *leaderHints {
	return &leaderHints{b: b, ctx: ctx, zone: zone, view: b.Topology.Snapshot(), seen: map[int32]metadata.Agent{}}
}

// hintMaxAge is the age of a view that is asked again if it does not know of a
// refusal's reason.
const hintMaxAge = 20 * time.Millisecond

// leader returns the hint for a partition that was refused with err. There is
// none where the newest view names this agent itself: of a dead holder's lease
// that has not ended yet. Some clients ask nobody for seconds where there is none.
// An agent that stands in for a holder elsewhere does name itself: its client may
// know an older leader epoch.
func (h *leaderHints) leader(k lease.Key, err error) (leaderHint, bool) {
	held, isHeld := errors.AsType[*lease.HeldByOtherError](err)
	if isHeld {
		// The refusal may be newer than any view: of a lease that was just handed over.
		_, known, _ := h.view.Holder(k)
		if holder, listed := h.view.Agent(held.Holder.AgentID); listed && h.view.Heard(holder) && held.Holder.LeaderEpoch > known {
			return h.hint(h.b.inPlaceOf(h.view, holder, h.zone, k), held.Holder.LeaderEpoch)
		}
	}
	h.show()
	holder, _, alive := h.view.Holder(k)
	a, epoch, ok := h.b.leaderFor(h.view, h.zone, k)
	if !h.refreshed && (a.NodeID == h.b.NodeID || isHeld && holder.ID != held.Holder.AgentID) {
		h.refresh()
		holder, _, alive = h.view.Holder(k)
		a, epoch, ok = h.b.leaderFor(h.view, h.zone, k)
	}
	if own := a.NodeID == h.b.NodeID; ok && own && errors.Is(err, lease.ErrReleased) {
		// The agent leads nothing any more, and is not off the list yet.
		var successor string
		if successor, ok = h.view.Successor(k, a); ok {
			a, ok = h.view.Agent(successor)
		}
	} else if own && (!alive || holder.NodeID == a.NodeID || h.b.departure.leaving()) {
		ok = false
	}
	if !ok {
		return leaderHint{}, false
	}
	if isHeld && holder.ID == held.Holder.AgentID {
		epoch = max(epoch, held.Holder.LeaderEpoch)
	}
	return h.hint(a, epoch)
}

// since returns the hint for a partition of which a leader epoch is known to have
// begun.
func (h *leaderHints) since(k lease.Key, epoch int32) (leaderHint, bool) {
	h.show()
	if _, known, _ := h.view.Holder(k); known < epoch && !h.refreshed {
		h.refresh()
	}
	return h.leader(k, nil)
}

// show makes the view one that is fit to be shown. Not asking for it where the
// refusal says all spares the database a query of each agent that is refused, when
// a lease is new.
func (h *leaderHints) show() {
	if !h.fit {
		h.fit, h.view = true, h.b.view(h.ctx)
	}
}

func (h *leaderHints) refresh() {
	h.fit, h.refreshed = true, true
	if s, err := h.b.Topology.Refresh(h.ctx, hintMaxAge); err == nil {
		h.view = s
	}
}

func (h *leaderHints) hint(a metadata.Agent, epoch int32) (leaderHint, bool) {
	h.seen[a.NodeID] = a
	return leaderHint{a.NodeID, epoch}, true
}

// named returns the agents that were named, by node id.
func (h *leaderHints) named() []metadata.Agent {
	return slices.SortedFunc(maps.Values(h.seen), func(a, b metadata.Agent) int { return cmp.Compare(a.NodeID, b.NodeID) })
}
