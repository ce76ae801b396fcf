package ingest

import (
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

// lane is the way of batches to the agent that commits them: this one for what it
// leads, or the holder of borrowed leases. Lanes do not wait for one another. A lane
// exists as long as there is something in it, but for the agent's own.
type lane struct {
	holder     string    // "" is this agent
	line       []*part   // sealed and not settled, in the order of acceptance
	committing bool      // a commit is in flight, of parts at the head of the line
	begun      time.Time // when the last one began
}

// part is what is committed under one name: the batches of a flush whose partitions
// one agent leads, or an object that another agent has this one commit.
type part struct {
	id    segment.ID
	lane  *lane
	flush *flush // nil: guest
	guest *guest // nil: flush
	size  int    // batches
}

// split makes the parts of a sealed flush for the holders, and puts them into their
// lanes. The caller holds mu.
func (p *Pool) split(f *flush, holders []string) {
	slices.Sort(holders) // the agent itself is first
	for n, holder := range holders {
		l := p.lane(holder)
		pt := &part{id: segment.Part(f.id, n), lane: l, flush: f}
		for i := range f.entries {
			if pt.has(&f.entries[i]) {
				pt.size++
			}
		}
		l.line = append(l.line, pt)
		f.parts = append(f.parts, pt)
	}
}

// has says whether a batch of the part's flush is in the part.
func (pt *part) has(e *entry) bool { return e.Lease.Holder() == pt.lane.holder }

// ready says whether the part can be committed. The caller holds the pool's mutex.
func (pt *part) ready() bool { return pt.flush == nil || pt.flush.progress == ready }

// opened is when the first batch was accepted.
func (pt *part) opened() time.Time {
	if pt.flush == nil {
		return pt.guest.accepted
	}
	return pt.flush.opened()
}

const (
	// maxGroup is about how many batches a commit has at most, and so bounds the
	// time that it takes; maxGroupParts is how many parts.
	maxGroup      = 16 << 10
	maxGroupParts = maxGuests / 2
)

// readyPrefix returns the parts at the head of the line that can be committed
// together. The caller holds the pool's mutex.
func (l *lane) readyPrefix() []*part {
	n := 0
	for batches := 0; n < min(len(l.line), maxGroupParts) && l.line[n].ready() && batches < maxGroup; n++ {
		batches += l.line[n].size
	}
	return slices.Clone(l.line[:n])
}

// lane returns the lane to a holder, a new one if there is none. The caller holds mu.
func (p *Pool) lane(holder string) *lane {
	for _, l := range p.lanes {
		if l.holder == holder {
			return l
		}
	}
	l := &lane{holder: holder}
	p.lanes = append(p.lanes, l)
	return l
}

// leave drops a lane that has nothing left. The caller holds mu.
func (p *Pool) leave(l *lane) {
	if l != p.own && len(l.line) == 0 && !l.committing {
		p.lanes = slices.DeleteFunc(p.lanes, func(other *lane) bool { return other == l })
	}
}

// commitObject is the part without the batches that were answered already.
// entries are the ones of its batches, nil of a guest.
func (pt *part) commitObject() (o metadata.CommitObject, entries []*entry) {
	f := pt.flush
	if f == nil {
		return pt.guest.object, nil
	}
	o = metadata.CommitObject{ID: pt.id, Size: f.size, Batches: make([]metadata.CommitBatch, 0, pt.size)}
	entries = make([]*entry, 0, pt.size)
	for at, i := range f.order {
		e := &f.entries[i]
		if !pt.has(e) || e.err != nil {
			continue
		}
		b := metadata.CommitBatch{
			Key:           e.Lease.Key(),
			LeaderEpoch:   e.Lease.LeaderEpoch(),
			Length:        int32(len(e.Batch.Batch)),
			Records:       e.Batch.RecordCount,
			ProducerID:    e.Batch.ProducerID,
			ProducerEpoch: e.Batch.ProducerEpoch,
			BaseSequence:  e.Batch.BaseSequence,
			MaxTimestamp:  e.Batch.MaxTimestamp,
			LogAppendTime: e.LogAppendTime,
		}
		if f.kind == inline {
			begin, end := f.positions[at], f.positions[at]+int64(b.Length)
			b.Inline = f.stored[begin:end:end]
		} else {
			b.Position = f.positions[at]
		}
		o.Batches = append(o.Batches, b)
		entries = append(entries, e)
	}
	return o, entries
}

// unshown is the part's object if this agent has it and the observer has not had it
// yet, else nil. The flush keeps it no longer: other parts may have to wait long. The
// caller holds Pool.showing.
func (pt *part) unshown() []byte {
	f := pt.flush
	if f == nil || f.kind == inline {
		return nil
	}
	object := f.stored
	f.stored = nil
	return object
}

// release lets go of the bytes of batches that were answered. Other parts of their
// flush may have to wait long for their own answers, and hold the flush.
func (pt *part) release(answered []*entry) {
	if pt.flush == nil || len(pt.flush.parts) == 1 {
		return
	}
	for _, e := range answered {
		e.Batch.Batch, e.Receiver = nil, nil
	}
}
