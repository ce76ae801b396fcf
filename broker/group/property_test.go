package group

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestMachineProperties steps the machine with whatever clients may send, and
// checks after each step what must always hold: the machine's own invariants,
// one answer a request, generations that only grow, and one assignment a member
// and generation. When the clients fall silent, every request is answered, and
// no member is left.
func TestMachineProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(rt)
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			h.random()
		}
		h.silence()
	})
}

// history is what a machine was asked and has answered.
type history struct {
	*rapid.T
	cfg  Config
	m    *machine
	now  time.Duration
	open map[*call]any // the requests that wait

	members     []string          // ids that were given out
	instances   map[string]string // instance id by member id
	generations map[string]int32  // of a group
	assigned    map[string]string // by member id and generation
}

func newHistory(rt *rapid.T) *history {
	h := &history{
		T: rt, cfg: DefaultConfig(), open: make(map[*call]any),
		instances: make(map[string]string), generations: make(map[string]int32), assigned: make(map[string]string),
	}
	h.cfg.MaxSize = rapid.IntRange(1, 5).Draw(rt, "max size")
	h.m = newMachine(&h.cfg)
	return h
}

// random makes one step.
func (h *history) random() {
	if rapid.IntRange(0, 3).Draw(h.T, "what") == 0 {
		h.pass(time.Duration(rapid.IntRange(0, 40_000).Draw(h.T, "ms")) * time.Millisecond)
		return
	}
	h.step(h.request())
}

func (h *history) step(request any) {
	c := newCall()
	h.open[c] = request
	h.take(h.m.step(h.now, c, request))
}

func (h *history) pass(by time.Duration) {
	end := h.now + by
	for at, ok := h.m.timers.next(); ok && at <= end; at, ok = h.m.timers.next() {
		h.now = max(h.now, at)
		h.take(h.m.expire(h.now))
	}
	h.now = end
}

// silence lets all timers fire.
func (h *history) silence() {
	for n := 0; len(h.m.timers) > 0; n++ {
		if n > 10_000 {
			h.Fatalf("timers without end")
		}
		at, _ := h.m.timers.next()
		h.now = max(h.now, at)
		h.take(h.m.expire(h.now))
	}
	if len(h.open) > 0 || len(h.m.groups) > 0 || h.m.counts.members > 0 {
		h.Fatalf("%d requests wait, %d groups and %d members are left", len(h.open), len(h.m.groups), h.m.counts.members)
	}
}

func (h *history) request() any {
	group := rapid.SampledFrom([]string{"g", "h"}).Draw(h.T, "group")
	member := ""
	if len(h.members) > 0 {
		member = rapid.SampledFrom(append([]string{""}, h.members...)).Draw(h.T, "member")
	}
	m := Membership{Group: group, MemberID: member, InstanceID: h.instances[member]}
	if g := h.m.groups[group]; g != nil {
		m.Generation = g.generation - int32(rapid.IntRange(0, 1).Draw(h.T, "behind"))
	}
	switch rapid.IntRange(0, 9).Draw(h.T, "kind") {
	case 0, 1, 2, 3:
		return h.join(group, member)
	case 4, 5:
		r := &SyncRequest{Membership: m}
		for _, id := range h.members {
			r.Assignments = append(r.Assignments, Assignment{id, fmt.Appendf(nil, "%d", len(h.assigned))})
		}
		return r
	case 6:
		return &HeartbeatRequest{m}
	case 7:
		return &LeaveRequest{Group: group, Members: []LeavingMember{{MemberID: member, InstanceID: m.InstanceID}}}
	case 8:
		return &CommitRequest{Membership: m}
	}
	return &describeRequest{group}
}

func (h *history) join(group, member string) *JoinRequest {
	r := &JoinRequest{
		Group: group, MemberID: member, ProtocolType: consumerProtocol,
		Protocols:         []Protocol{{Name: "common", Metadata: []byte{byte(rapid.IntRange(0, 1).Draw(h.T, "metadata"))}}},
		SessionTimeout:    time.Duration(rapid.IntRange(6, 20).Draw(h.T, "session")) * time.Second,
		RebalanceTimeout:  time.Duration(rapid.IntRange(0, 30).Draw(h.T, "rebalance")) * time.Second,
		KnownMemberID:     rapid.Bool().Draw(h.T, "known"),
		CanSkipAssignment: rapid.Bool().Draw(h.T, "skip"),
	}
	if preferred := rapid.SampledFrom([]string{"", "x", "y"}).Draw(h.T, "protocol"); preferred != "" {
		r.Protocols = slices.Insert(r.Protocols, 0, Protocol{Name: preferred})
	}
	if member != "" {
		r.InstanceID = h.instances[member]
		return r
	}
	r.newMemberID = fmt.Sprintf("m%d", len(h.members))
	h.members = append(h.members, r.newMemberID)
	if instance := rapid.SampledFrom([]string{"", "", "i", "j"}).Draw(h.T, "instance"); instance != "" {
		r.InstanceID, h.instances[r.newMemberID] = instance, instance
	}
	return r
}

// take checks what a step did.
func (h *history) take(effects []effect) {
	if err := h.m.check(); err != nil {
		h.Fatalf("invariant broken: %v", err)
	}
	for _, e := range effects {
		switch e := e.(type) {
		case reply:
			h.answer(e)
		case storeFetch:
			delete(h.open, e.call)
		}
	}
	for id, g := range h.m.groups {
		if g.generation < h.generations[id] {
			h.Fatalf("generation of %s fell from %d to %d", id, h.generations[id], g.generation)
		}
		h.generations[id] = g.generation
	}
	for id := range h.generations {
		if h.m.groups[id] == nil {
			delete(h.generations, id) // forgotten: it begins anew
		}
	}
}

func (h *history) answer(e reply) {
	request, ok := h.open[e.call]
	if !ok {
		h.Fatalf("a request was answered twice")
	}
	delete(h.open, e.call)
	if r, ok := request.(*SyncRequest); ok && e.err == nil {
		key := fmt.Sprintf("%s %s %d", r.Group, r.MemberID, r.Generation)
		got := string(e.answer.(SyncResponse).Assignment)
		if before, ok := h.assigned[key]; ok && before != got {
			h.Fatalf("%s: assigned %q, and %q before", key, got, before)
		}
		h.assigned[key] = got
	}
}

// TestTimers checks the heap against a list.
func TestTimers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var h timers
		var fired []int
		all := make([]*timer, 8)
		due := make(map[int]time.Duration)
		for i := range all {
			all[i] = &timer{fire: func(time.Duration) { fired = append(fired, i) }}
		}
		now := time.Duration(0)
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			i := rapid.IntRange(0, len(all)-1).Draw(rt, "timer")
			switch rapid.IntRange(0, 2).Draw(rt, "what") {
			case 0:
				due[i] = now + time.Duration(rapid.IntRange(0, 20).Draw(rt, "in"))
				h.schedule(all[i], due[i])
			case 1:
				delete(due, i)
				h.cancel(all[i])
			case 2:
				now += time.Duration(rapid.IntRange(0, 20).Draw(rt, "by"))
				fired = nil
				h.expire(now)
				var want []int
				for i, at := range due {
					if at <= now {
						want = append(want, i)
						delete(due, i)
					}
				}
				slices.Sort(want)
				slices.Sort(fired)
				if !slices.Equal(fired, want) {
					rt.Fatalf("fired %v, want %v", fired, want)
				}
			}
			if at, ok := h.next(); ok != (len(due) > 0) || ok && at > earliest(due) {
				rt.Fatalf("next %v %t, due %v", at, ok, due)
			}
		}
	})
}

func earliest(due map[int]time.Duration) time.Duration {
	first := time.Duration(1 << 62)
	for _, at := range due {
		first = min(first, at)
	}
	return first
}
