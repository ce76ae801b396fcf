package check

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Options say what is demanded of a history.
type Options struct {
	// Staleness is how long after its acknowledgement an agent may still not know of a record when it is asked by Fetch.
	// Zero: any time.
	Staleness time.Duration
	// Legal are kinds that are no anomalies in this history.
	Legal []Kind
}

// Check returns what is wrong with a history, by partition and offset; at most 1000 anomalies of a kind. It takes
// O(n log n) time, and beside the history some 20 bytes a record, and 32 more for those of the largest partition.
func Check(h History, options Options) []Anomaly {
	c := checker{
		history: &h, options: options,
		strangers: make(map[ID]ref), reported: make(map[identity]bool), count: make(map[Kind]int),
	}
	for _, p := range c.partitions() {
		c.checkLogs(p)
		c.checkPolls(p)
		c.checkFates(p)
		c.checkOrder(p)
		c.checkSessions(p)
		c.checkTimes(p)
		*p = partition{} // the memory is for the next
	}
	c.checkCommits()
	slices.SortStableFunc(c.anomalies, func(a, b Anomaly) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Kind, b.Kind))
	})
	c.addEvidence()
	return c.anomalies
}

// checker is a history with what was found out about it.
type checker struct {
	history *History
	options Options

	bases     []int   // by producer: how many records those before it sent
	found     []int64 // by record: the first offset at which it was found, or NoOffset
	strangers map[ID]ref
	names     []ID // of strangers

	anomalies []Anomaly
	reported  map[identity]bool
	count     map[Kind]int
}

// ref names a record in 4 bytes: 1 + its index among all records sent, or a number above these for a stranger, which
// was read and never sent.
type ref uint32

const nothing ref = 0

// partition is what a history says of one partition.
type partition struct {
	number int32
	sends  []ref
	logs   []*Log
	ends   []*End
	// sessions are of all consumers; consumers has the consumer of each.
	sessions  []*Session
	consumers []int
	known     offsets
}

// partitions sorts the history by partition.
func (c *checker) partitions() []*partition {
	byNumber := make(map[int32]*partition)
	get := func(number int32) *partition {
		p := byNumber[number]
		if p == nil {
			p = &partition{number: number}
			byNumber[number] = p
		}
		return p
	}
	total := 0
	for _, producer := range c.history.Producers {
		c.bases = append(c.bases, total)
		for i, s := range producer.Sends {
			p := get(s.Partition)
			p.sends = append(p.sends, ref(total+i+1))
		}
		total += len(producer.Sends)
	}
	c.found = slices.Repeat([]int64{NoOffset}, total)
	for i := range c.history.Logs {
		l := &c.history.Logs[i]
		p := get(l.Partition)
		p.logs = append(p.logs, l)
	}
	for i := range c.history.Ends {
		e := &c.history.Ends[i]
		p := get(e.Partition)
		p.ends = append(p.ends, e)
	}
	for i, consumer := range c.history.Consumers {
		for j := range consumer.Sessions {
			s := &consumer.Sessions[j]
			p := get(s.Partition)
			p.sessions = append(p.sessions, s)
			p.consumers = append(p.consumers, i)
		}
	}
	return slices.SortedFunc(maps.Values(byNumber), func(a, b *partition) int { return cmp.Compare(a.number, b.number) })
}

// ref returns the name of a record that was read.
func (c *checker) ref(id ID) ref {
	if c.sent(id) != nil {
		return ref(c.bases[id.Producer] + int(id.Sequence) + 1)
	}
	r, ok := c.strangers[id]
	if !ok {
		c.names = append(c.names, id)
		r = ref(len(c.found) + len(c.names))
		c.strangers[id] = r
	}
	return r
}

// id is the inverse of ref.
func (c *checker) id(r ref) ID {
	i := int(r) - 1
	if i >= len(c.found) {
		return c.names[i-len(c.found)]
	}
	producer, exact := slices.BinarySearch(c.bases, i)
	if !exact {
		producer--
	}
	for len(c.history.Producers[producer].Sends) == 0 {
		producer++ // those that sent nothing have the base of the next
	}
	return ID{Producer: int32(producer), Sequence: int64(i - c.bases[producer])}
}

// sent returns how a record was sent, nil if it was not.
func (c *checker) sent(id ID) *Send {
	if id.Producer < 0 || int(id.Producer) >= len(c.history.Producers) {
		return nil
	}
	sends := c.history.Producers[id.Producer].Sends
	if id.Sequence < 0 || id.Sequence >= int64(len(sends)) {
		return nil
	}
	return &sends[id.Sequence]
}
