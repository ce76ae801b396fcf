package check

import (
	"cmp"
	"fmt"
	"slices"
)

// ID names a record. A producer numbers what it sends to any partition in the order in which it sends it.
type ID struct {
	Producer int32
	Sequence int64
}

// Unacknowledged is the Offset of a Sent record whose fate its producer doesn't know.
const Unacknowledged int64 = -1

// Sent is a record that was handed to a producer.
type Sent struct {
	ID
	Partition int32
	Offset    int64 // as acknowledged, or Unacknowledged
}

// Read is a record as a consumer got it.
type Read struct {
	ID
	Partition int32
	Offset    int64
}

// History is all that is known of a topic to which only idempotent producers wrote, without transactions, and from
// which nothing was deleted.
type History struct {
	Sent []Sent
	// Ends are the end offsets of all partitions, once the producers were done.
	Ends map[int32]int64
	// Log is what one reader found afterwards, from the beginning to the ends.
	Log []Read
	// Seen is what consumers read while the producers were at work, in any order and as often as they liked.
	Seen []Read
}

// Kind is a way in which a history is wrong.
type Kind string

const (
	Lost        Kind = "lost"         // acknowledged, but not in the log
	WrongOffset Kind = "wrong offset" // acknowledged at one offset, found at another
	Duplicate   Kind = "duplicate"    // at two offsets
	Phantom     Kind = "phantom"      // in the log of a partition to which nobody sent it
	Reordered   Kind = "reordered"    // behind a record that its producer sent later
	Gap         Kind = "gap"          // an offset between 0 and the end that holds no record
	Conflict    Kind = "conflict"     // an offset that holds more than one record, or lies outside of [0, end)
	Changed     Kind = "changed"      // seen once at an offset where the log holds something else
)

// Violation is one thing that is wrong with a history.
type Violation struct {
	Kind      Kind
	Partition int32
	Offset    int64 // where it shows; Unacknowledged if nowhere
	ID        ID    // of the record concerned; zero for a Gap
	Detail    string
}

func (v Violation) String() string {
	return fmt.Sprintf("partition %d offset %d: %s: record %d of producer %d: %s",
		v.Partition, v.Offset, v.Kind, v.ID.Sequence, v.ID.Producer, v.Detail)
}

type place struct {
	partition int32
	offset    int64
}

// checker is a history with the indexes that the rules look into.
type checker struct {
	history    History
	sent       map[ID]Sent
	at         map[place]ID   // the log by place; the first record where there are several
	places     map[ID][]place // the log by record
	violations []Violation
}

// Check returns all violations of a history, ordered by partition and offset. A history is right if there are none:
// every acknowledged record is in the log exactly once, at its offset; an unacknowledged one at most once; each
// producer's records in the order of sending within a partition; offsets dense from 0 to the end; and whatever a
// consumer ever saw at an offset is there still.
func Check(h History) []Violation {
	c := checker{history: h, sent: make(map[ID]Sent), at: make(map[place]ID), places: make(map[ID][]place)}
	for _, s := range h.Sent {
		c.sent[s.ID] = s
	}
	c.checkOffsets()
	c.checkFates()
	c.checkOrder()
	c.checkSeen()
	slices.SortFunc(c.violations, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Kind, b.Kind))
	})
	return c.violations
}

func (c *checker) violate(kind Kind, where place, id ID, detail string, args ...any) {
	c.violations = append(c.violations, Violation{
		Kind: kind, Partition: where.partition, Offset: where.offset, ID: id, Detail: fmt.Sprintf(detail, args...),
	})
}

// checkOffsets demands that the log's records tile [0, end) of each partition, and fills the indexes.
func (c *checker) checkOffsets() {
	for _, r := range c.history.Log {
		where := place{r.Partition, r.Offset}
		c.places[r.ID] = append(c.places[r.ID], where)
		if other, taken := c.at[where]; taken {
			c.violate(Conflict, where, r.ID, "record %d of producer %d is there too", other.Sequence, other.Producer)
			continue
		}
		c.at[where] = r.ID
		if end := c.history.Ends[r.Partition]; r.Offset < 0 || r.Offset >= end {
			c.violate(Conflict, where, r.ID, "outside of [0, %d)", end)
		}
	}
	for partition, end := range c.history.Ends {
		for offset := range end {
			if _, ok := c.at[place{partition, offset}]; !ok {
				c.violate(Gap, place{partition, offset}, ID{}, "no record, and the partition ends at %d", end)
			}
		}
	}
}

// checkFates compares each record's place with what its producer was told.
func (c *checker) checkFates() {
	for id, places := range c.places {
		sent, known := c.sent[id]
		if !known || places[0].partition != sent.Partition {
			c.violate(Phantom, places[0], id, "nobody sent it there")
			continue
		}
		for _, where := range places[1:] {
			c.violate(Duplicate, where, id, "it is at offset %d of partition %d too", places[0].offset, places[0].partition)
		}
	}
	for _, s := range c.history.Sent {
		where := place{s.Partition, s.Offset}
		places := c.places[s.ID]
		switch {
		case s.Offset == Unacknowledged || slices.Contains(places, where):
		case len(places) == 0:
			c.violate(Lost, where, s.ID, "acknowledged at this offset, but nowhere in the log")
		default:
			c.violate(WrongOffset, where, s.ID, "acknowledged at this offset, but found at %d", places[0].offset)
		}
	}
}

// checkOrder demands that sequences rise with the offsets. A duplicate is judged by its first place alone.
func (c *checker) checkOrder() {
	type stream struct {
		producer  int32
		partition int32
	}
	log := slices.Clone(c.history.Log)
	slices.SortStableFunc(log, func(a, b Read) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	newest := make(map[stream]int64)
	judged := make(map[ID]bool)
	for _, r := range log {
		if judged[r.ID] {
			continue
		}
		judged[r.ID] = true
		s := stream{r.Producer, r.Partition}
		if last, ok := newest[s]; ok && r.Sequence < last {
			c.violate(Reordered, place{r.Partition, r.Offset}, r.ID, "behind record %d", last)
			continue
		}
		newest[s] = r.Sequence
	}
}

// checkSeen demands that the log still says what it said to consumers before.
func (c *checker) checkSeen() {
	for _, r := range c.history.Seen {
		where := place{r.Partition, r.Offset}
		now, ok := c.at[where]
		switch {
		case !ok:
			c.violate(Changed, where, r.ID, "a consumer read it there, now nothing is")
		case now != r.ID:
			c.violate(Changed, where, r.ID, "a consumer read it there, now it is record %d of producer %d", now.Sequence, now.Producer)
		}
	}
}
