package group

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// TestMachineProperties steps the machine with whatever clients may send, while a
// store takes its records sooner or later, and coordinators crash. After each step
// it checks what must always hold: the machine's own invariants, one answer a
// request, one assignment a member and generation, and that no generation of which
// somebody was told begins again, whoever coordinates. When the clients fall
// silent, every request is answered, and in the end no group is left.
func TestMachineProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(rt)
		for range rapid.IntRange(1, 200).Draw(rt, "steps") {
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

	queue   []effect            // for the store
	records map[string]storedAt // in the store
	offsets map[string]map[lease.Key]time.Duration

	members   []string          // ids that were given out
	instances map[string]string // instance id by member id
	told      map[string]int32  // the last generation of a group that somebody knows
	// generations are those that the machine is in.
	generations map[string]int32
	assigned    map[string]string // by member id and generation
}

func newHistory(rt *rapid.T) *history {
	h := &history{
		T: rt, cfg: DefaultConfig(), open: make(map[*call]any),
		records: make(map[string]storedAt), offsets: make(map[string]map[lease.Key]time.Duration),
		instances: make(map[string]string), told: make(map[string]int32), generations: make(map[string]int32), assigned: make(map[string]string),
	}
	h.cfg.MaxSize = rapid.IntRange(1, 5).Draw(rt, "max size")
	h.cfg.OffsetsRetention = time.Hour
	h.load()
	return h
}

// random makes one step.
func (h *history) random() {
	switch rapid.IntRange(0, 11).Draw(h.T, "what") {
	case 0, 1:
		h.pass(time.Duration(rapid.IntRange(0, 40_000).Draw(h.T, "ms")) * time.Millisecond)
	case 2, 3:
		h.flush()
	case 4:
		h.crash(rapid.Bool().Draw(h.T, "written"))
	default:
		h.step(h.request())
	}
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
	for n := 0; len(h.open) > 0 || len(h.m.groups) > 0; n++ {
		if n > 10_000 {
			h.Fatalf("%d requests wait, %d groups are left", len(h.open), len(h.m.groups))
		}
		at, _ := h.m.timers.next()
		h.now = max(h.now, at)
		h.take(h.m.expire(h.now))
		h.flush()
	}
	if h.m.counts != (counts{}) || len(h.records) > 0 || len(h.m.timers) > 1 {
		h.Fatalf("counted %+v, %d records and %d timers are left", h.m.counts, len(h.records), len(h.m.timers))
	}
}

// load makes a machine of what is stored.
func (h *history) load() {
	var stored []metadata.StoredGroup
	for _, id := range slices.Sorted(maps.Keys(h.records)) {
		r := h.records[id]
		stored = append(stored, metadata.StoredGroup{GroupRecord: metadata.GroupRecord{Group: id, Record: r.record}, Age: h.now - r.at})
	}
	var err error
	if h.m, err = newMachine(&h.cfg, noTopics, h.now, stored); err != nil {
		h.Fatalf("load: %v", err)
	}
	clear(h.generations)
	for id, g := range h.m.groups {
		if got := encodeRecord(g.record()); got != h.records[id].record {
			h.Fatalf("stored\n%s\nand loaded\n%s", h.records[id].record, got)
		}
		h.generations[id] = h.m.classic(id).generation
	}
}

// crash ends the coordinator, after its last write was made or before; another one
// takes over.
func (h *history) crash(written bool) {
	for len(h.queue) > 0 && written {
		h.write(h.next())
	}
	for _, c := range h.m.abandon() {
		delete(h.open, c)
	}
	for _, e := range h.queue {
		h.close(e)
	}
	h.queue = nil
	clear(h.open) // what was queued, or written and not answered
	h.load()
}

// close marks a request that the store was to answer as answered.
func (h *history) close(e effect) {
	switch e := e.(type) {
	case reply:
		delete(h.open, e.call)
	case storeCommit:
		delete(h.open, e.call)
	case storeFetch:
		delete(h.open, e.call)
	}
}

// flush is what a shard does with its queue.
func (h *history) flush() {
	for len(h.queue) > 0 {
		b := h.next()
		h.write(b)
		h.m.stored(b.stored)
		for _, e := range b.waiting {
			if r, ok := e.(reply); ok {
				h.answer(r)
			} else {
				h.close(e)
			}
		}
	}
}

// next takes a batch from the queue, and does what is not written.
func (h *history) next() *batch {
	b := new(batch)
	for len(h.queue) > 0 {
		e := h.queue[0]
		switch e := e.(type) {
		case storeFetch:
			delete(h.open, e.call)
		case storeOld:
			h.queue = h.queue[1:]
			h.take(h.m.expireOffsets(h.now, e.groups, h.old(e.groups)))
			continue
		default:
			if !b.add(e) {
				return b
			}
		}
		h.queue = h.queue[1:]
	}
	return b
}

func (h *history) old(groups []string) []metadata.OldOffsets {
	all := make([]metadata.OldOffsets, len(groups))
	for i, g := range groups {
		all[i].Total = len(h.offsets[g])
		for k, at := range h.offsets[g] {
			if h.now-at >= h.cfg.OffsetsRetention {
				all[i].Old = append(all[i].Old, metadata.OldOffset{Key: k, Topic: "t"})
			}
		}
	}
	return all
}

func (h *history) write(b *batch) {
	for _, g := range b.write.Delete {
		delete(h.records, g)
		delete(h.offsets, g)
	}
	for _, f := range b.write.DeleteOffsets {
		for _, k := range f.Keys {
			delete(h.offsets[f.Group], k)
		}
	}
	for _, c := range b.write.Commit {
		if h.offsets[c.Group] == nil {
			h.offsets[c.Group] = make(map[lease.Key]time.Duration)
		}
		h.offsets[c.Group][c.Offsets[0].Key] = h.now
	}
	for g, r := range b.records {
		h.records[g] = storedAt{encodeRecord(r), h.now}
	}
}

func (h *history) request() any {
	group := rapid.SampledFrom([]string{"g", "h"}).Draw(h.T, "group")
	member := ""
	if len(h.members) > 0 {
		member = rapid.SampledFrom(append([]string{""}, h.members...)).Draw(h.T, "member")
	}
	g := h.m.classic(group)
	if g != nil && len(g.members) > 0 && rapid.Bool().Draw(h.T, "known member") {
		member = rapid.SampledFrom(g.members).Draw(h.T, "of the group").id
	}
	m := Membership{Group: group, MemberID: member, InstanceID: h.instances[member]}
	if g != nil {
		m.Generation = g.generation - int32(rapid.IntRange(0, 7).Draw(h.T, "behind")/7)
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
		if rapid.Bool().Draw(h.T, "simple") {
			m = Membership{Group: group, Generation: -1}
		}
		return &CommitRequest{Membership: m, Offsets: []metadata.CommittedOffset{{}}}
	}
	if rapid.IntRange(0, 4).Draw(h.T, "deletes") == 0 {
		return &deleteRequest{group}
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
	h.begun()
	for _, e := range effects {
		switch e := e.(type) {
		case note:
			continue
		case reply:
			if !e.held {
				h.answer(e)
				continue
			}
		case storeGroup:
			if e.deleted {
				h.beginAnew(e.group)
			}
		}
		h.queue = append(h.queue, e)
	}
}

// begun checks the generations that a step has begun.
func (h *history) begun() {
	for id := range h.m.groups {
		g := h.m.classic(id)
		if g != nil && g.generation > h.generations[id] && g.generation <= h.told[id] {
			h.Fatalf("generation %d of %s begins after %d", g.generation, id, h.told[id])
		}
		if g != nil {
			h.generations[id] = g.generation
		}
	}
}

// beginAnew forgets the generations of a group that is deleted, and those of which
// somebody is told later.
func (h *history) beginAnew(group string) {
	delete(h.told, group)
	delete(h.generations, group)
	for c, request := range h.open {
		if r, ok := request.(*JoinRequest); ok && r.Group == group {
			h.open[c] = nil
		}
	}
}

func (h *history) answer(e reply) {
	request, ok := h.open[e.call]
	if !ok {
		h.Fatalf("a request was answered twice")
	}
	delete(h.open, e.call)
	if e.err != nil {
		return
	}
	switch r := request.(type) {
	case *JoinRequest:
		h.told[r.Group] = max(h.told[r.Group], e.answer.(JoinResponse).Generation)
	case *SyncRequest:
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
