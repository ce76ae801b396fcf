package metadatatest

import (
	"cmp"
	"maps"
	"slices"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

var modelTests = []test{
	{"any sequence of calls answers as a model in memory does", func(e *env) {
		rapid.Check(e.T, func(t *rapid.T) {
			m := newModel(e, t)
			t.Repeat(map[string]func(*rapid.T){
				"":              m.check,
				"commit":        m.commit,
				"retry":         m.retry,
				"acquire":       m.acquire,
				"renew":         m.renew,
				"release":       m.release,
				"claim":         m.claim,
				"deleteRecords": m.deleteRecords,
				"prune":         m.prune,
			})
		})
	}},
}

const (
	modelPartitions = 3
	modelProducers  = 3
)

// model is the store's twin: one topic, its leases and its logs.
type model struct {
	*env
	producersFrom int64
	partitions    map[lease.Key]*modelPartition
	order         []lease.Key
	objects       []*modelObject
}

type modelPartition struct {
	term           lease.Term // of the newest leadership
	leader         string     // "" if nobody leads
	expired        bool
	high, logStart int64
	extents        []metadata.Extent
	producers      map[int64]*metadata.ProducerState
}

// modelObject is an object whose name is used.
type modelObject struct {
	object  metadata.CommitObject
	agent   string
	results []metadata.CommitResult // nil: claimed
}

func newModel(e *env, t *rapid.T) *model {
	id := uuid.New()
	topic := metadata.NewTopic{ID: id, Name: id.String(), Partitions: modelPartitions}
	if err := e.store.CreateTopic(e.ctx, topic); err != nil {
		t.Fatal(err)
	}
	// Younger than the topic, so that none can have been forgotten.
	producers, err := e.store.AllocateProducerIDs(e.ctx, modelProducers)
	noError(t, producers, err)
	m := &model{env: e, producersFrom: producers, partitions: make(map[lease.Key]*modelPartition), order: keys(topic)}
	for _, k := range m.order {
		m.partitions[k] = &modelPartition{
			term: lease.Term{Key: k, LeaderEpoch: -1}, producers: make(map[int64]*metadata.ProducerState),
		}
	}
	return m
}

var modelAgents = rapid.SampledFrom([]string{"model-a", "model-b"})

func noError[T any](t *rapid.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func same(t *rapid.T, what string, got, want any) {
	t.Helper()
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-model +store):\n%s", what, diff)
	}
}

// drawBatch draws a batch of any fate.
func (m *model) drawBatch(t *rapid.T) metadata.CommitBatch {
	k := rapid.SampledFrom(m.order).Draw(t, "partition")
	p := m.partitions[k]
	b := batch(p.term, rapid.Int32Range(1, 5).Draw(t, "records"))
	b.LeaderEpoch -= rapid.SampledFrom([]int32{0, 0, 0, 0, 0, 0, 0, 1}).Draw(t, "stale by")
	b.MaxTimestamp = rapid.Int64Range(1, 100).Draw(t, "timestamp")
	b.LogAppendTime = rapid.Bool().Draw(t, "log append time")
	if n := rapid.Int64Range(-1, modelProducers-1).Draw(t, "producer"); n >= 0 {
		b.ProducerID = m.producersFrom + n
		b.ProducerEpoch = rapid.SampledFrom([]int16{0, 0, 0, 1}).Draw(t, "producer epoch")
		b.BaseSequence = m.drawSequence(t, p, &b)
	}
	return b
}

// drawSequence draws the next sequence, a remembered batch's, or any.
func (m *model) drawSequence(t *rapid.T, p *modelPartition, b *metadata.CommitBatch) int32 {
	state := p.producers[b.ProducerID]
	if state == nil || len(state.Entries) == 0 {
		return rapid.SampledFrom([]int32{0, 0, 0, 1}).Draw(t, "first sequence")
	}
	switch rapid.IntRange(0, 5).Draw(t, "sequence") {
	case 0:
		return rapid.Int32Range(0, 50).Draw(t, "any sequence")
	case 1:
		old := rapid.SampledFrom(state.Entries).Draw(t, "old batch")
		b.Records, b.ProducerEpoch = old.LastSequence-old.BaseSequence+1, state.Epoch
		return old.BaseSequence
	default:
		return state.Entries[len(state.Entries)-1].LastSequence + 1
	}
}

// drawObject draws an object in the order that a commit asks for.
func (m *model) drawObject(t *rapid.T) metadata.CommitObject {
	var batches []metadata.CommitBatch
	for range rapid.IntRange(1, 6).Draw(t, "batches") {
		batches = append(batches, m.drawBatch(t))
	}
	slices.SortStableFunc(batches, func(a, b metadata.CommitBatch) int {
		return cmp.Or(a.Compare(b.Key), cmp.Compare(a.ProducerID, b.ProducerID))
	})
	if rapid.Bool().Draw(t, "inline") {
		return inline(batches...)
	}
	return object(batches...)
}

func (m *model) commit(t *rapid.T) {
	c := &metadata.Commit{AgentID: modelAgents.Draw(t, "agent")}
	for range rapid.IntRange(1, 3).Draw(t, "objects") {
		c.Objects = append(c.Objects, m.drawObject(t))
	}
	results, err := m.store.Commit(m.ctx, c)
	noError(t, results, err)
	for i := range c.Objects {
		o := &c.Objects[i]
		want := make([]metadata.CommitResult, len(o.Batches))
		for j := range o.Batches {
			want[j] = m.append(c.AgentID, &o.Batches[j], results[i][j].AppendTime)
		}
		same(t, "results", results[i], want)
		for _, x := range metadata.ExtentsOf(o, want) {
			m.partitions[x.Key].extents = append(m.partitions[x.Key].extents, x.Extent)
		}
		m.objects = append(m.objects, &modelObject{*o, c.AgentID, want})
	}
}

// append is the model of one batch's fate; now is what the store took for its
// clock.
func (m *model) append(agent string, b *metadata.CommitBatch, now int64) metadata.CommitResult {
	p := m.partitions[b.Key]
	refused := func(o metadata.CommitOutcome) metadata.CommitResult {
		return metadata.CommitResult{Outcome: o, BaseOffset: -1, AppendTime: -1, LogStartOffset: p.logStart}
	}
	if p.leader != agent || b.LeaderEpoch != p.term.LeaderEpoch {
		return refused(metadata.Fenced)
	}
	r := metadata.CommitResult{BaseOffset: p.high, AppendTime: -1, LogStartOffset: p.logStart}
	if b.LogAppendTime {
		r.AppendTime = max(now, 1) // the store's answer, which must be a time
	}
	if b.ProducerID >= 0 {
		state := p.producers[b.ProducerID]
		if state == nil {
			state = new(metadata.ProducerState)
			p.producers[b.ProducerID] = state
		}
		outcome, original := state.Check(b.ProducerEpoch, b.BaseSequence, b.Records, false)
		switch outcome {
		case metadata.Committed:
			state.Append(b.ProducerEpoch, metadata.ProducerEntry{
				BaseSequence: b.BaseSequence, LastSequence: metadata.LastSequence(b.BaseSequence, b.Records),
				BaseOffset: r.BaseOffset, AppendTime: r.AppendTime,
			})
		case metadata.Duplicate:
			r.Outcome, r.BaseOffset, r.AppendTime = outcome, original.BaseOffset, original.AppendTime
			return r
		default:
			return refused(outcome)
		}
	}
	p.high += int64(b.Records)
	return r
}

func (m *model) retry(t *rapid.T) {
	if len(m.objects) == 0 {
		return
	}
	o := rapid.SampledFrom(m.objects).Draw(t, "object")
	results, err := m.store.Commit(m.ctx, &metadata.Commit{AgentID: o.agent, Objects: []metadata.CommitObject{o.object}})
	noError(t, results, err)
	if o.results != nil {
		same(t, "results", results[0], o.results)
		return
	}
	for _, r := range results[0] {
		same(t, "outcome", r.Outcome, metadata.ObjectClaimed)
	}
}

func (m *model) claim(t *rapid.T) {
	o := &modelObject{object: m.drawObject(t), agent: modelAgents.Draw(t, "agent")}
	ids, want := []segment.ID{o.object.ID}, []segment.ID{o.object.ID}
	for _, used := range m.objects {
		ids = append(ids, used.object.ID)
		if used.results == nil {
			want = append(want, used.object.ID)
		}
	}
	claimed, err := m.store.ClaimOrphans(m.ctx, ids)
	noError(t, claimed, err)
	byID := func(a, b segment.ID) int { return slices.Compare(a[:], b[:]) }
	slices.SortFunc(claimed, byID)
	slices.SortFunc(want, byID)
	same(t, "claimed", claimed, want)
	m.objects = append(m.objects, o)
}

func (m *model) acquire(t *rapid.T) {
	agent := modelAgents.Draw(t, "agent")
	ttl, expired := ttl, false
	if rapid.Bool().Draw(t, "expired at once") {
		ttl, expired = 0, true
	}
	results, err := m.store.Acquire(m.ctx, agent, ttl, m.order)
	noError(t, results, err)
	for i, k := range m.order {
		p, r := m.partitions[k], results[i]
		if p.leader != "" && p.leader != agent && (!p.expired || r.Err != nil) {
			same(t, "error", r.Err, error(&lease.HeldByOtherError{Key: k, Holder: heldBy(p, r.Err)}))
			continue
		}
		p.leader, p.expired = agent, expired
		p.term.Epoch++
		p.term.LeaderEpoch++
		same(t, "acquired", r, lease.Result{Term: p.term})
	}
}

// heldBy is the holder that a refusal should name; when the lease ends is the
// store's to say.
func heldBy(p *modelPartition, err error) lease.Holder {
	h := lease.Holder{AgentID: p.leader, LeaderEpoch: p.term.LeaderEpoch}
	if held, ok := err.(*lease.HeldByOtherError); ok {
		h.ExpiresIn = held.Holder.ExpiresIn
	}
	return h
}

// terms are the newest of all partitions, some of them not the agent's.
func (m *model) terms() []lease.Term {
	var terms []lease.Term
	for _, k := range m.order {
		terms = append(terms, m.partitions[k].term)
	}
	return terms
}

func (m *model) renew(t *rapid.T) {
	agent := modelAgents.Draw(t, "agent")
	renewed, err := m.store.Renew(m.ctx, agent, ttl, m.terms())
	noError(t, renewed, err)
	want := []lease.Term{}
	for _, k := range m.order {
		if p := m.partitions[k]; p.leader == agent {
			p.term.Epoch++
			p.expired = false
			want = append(want, p.term)
		}
	}
	slices.SortFunc(renewed, func(a, b lease.Term) int { return a.Compare(b.Key) })
	same(t, "renewed", append([]lease.Term{}, renewed...), want)
}

func (m *model) release(t *rapid.T) {
	agent := modelAgents.Draw(t, "agent")
	if err := m.store.Release(m.ctx, agent, m.terms()); err != nil {
		t.Fatal(err)
	}
	for p := range maps.Values(m.partitions) {
		if p.leader == agent {
			p.leader = ""
		}
	}
}

func (m *model) deleteRecords(t *rapid.T) {
	k := rapid.SampledFrom(m.order).Draw(t, "partition")
	p := m.partitions[k]
	to := rapid.Int64Range(0, p.high).Draw(t, "offset")
	got, err := m.store.DeleteRecords(m.ctx, k, to)
	noError(t, got, err)
	p.logStart = max(p.logStart, to)
	same(t, "log start", got, p.logStart)
}

// prune changes nothing that can be read.
func (m *model) prune(t *rapid.T) {
	rows, err := m.store.Prune(m.ctx)
	noError(t, rows, err)
}

// check compares all that can be read.
func (m *model) check(t *rapid.T) {
	var reqs []metadata.ReadRequest
	for _, k := range m.order {
		p := m.partitions[k]
		reqs = append(reqs, metadata.ReadRequest{
			Key:      k,
			Offset:   rapid.Int64Range(p.logStart, p.high+1).Draw(t, "offset"),
			MaxBytes: rapid.Int64Range(0, 10*batchLength).Draw(t, "max bytes"),
		})
	}
	results, err := m.store.Read(m.ctx, reqs)
	noError(t, results, err)
	for i, r := range reqs {
		p := m.partitions[r.Key]
		same(t, "read", results[i], metadata.ReadResult{
			Watermarks: metadata.Watermarks{
				LogStart: p.logStart, LastStable: p.high, High: p.high, LeaderEpoch: p.term.LeaderEpoch, LeaderID: p.leader,
			},
			Extents: p.read(r.Offset, r.MaxBytes),
		})
	}
}

func (p *modelPartition) read(offset, maxBytes int64) (extents []metadata.Extent) {
	if offset < p.logStart || offset >= p.high {
		return nil
	}
	for _, x := range p.extents {
		if x.EndOffset > offset && (len(extents) == 0 || maxBytes > 0) {
			extents = append(extents, x)
			maxBytes -= x.Length
		}
	}
	return extents
}
