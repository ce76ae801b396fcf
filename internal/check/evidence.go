package check

import (
	"fmt"
	"slices"
)

// addEvidence finds, in one more pass over the history, the operations that have to do with the anomalies.
func (c *checker) addEvidence() {
	if len(c.anomalies) == 0 {
		return
	}
	type place struct {
		partition int32
		offset    int64
	}
	byPlace, byID := make(map[place][]*Anomaly), make(map[ID][]*Anomaly)
	for i := range c.anomalies {
		a := &c.anomalies[i]
		at := place{a.Partition, a.Offset}
		byPlace[at] = append(byPlace[at], a)
		if a.Named {
			byID[a.ID] = append(byID[a.ID], a)
			if c.sent(a.ID) != nil {
				a.addEvidence(c.describeSend(a.ID))
			}
		}
	}
	look := func(partition int32, r Record, describe func() string) {
		for _, a := range byID[r.ID] {
			a.addEvidence(describe())
		}
		for _, a := range byPlace[place{partition, r.Offset}] {
			if !a.Named || a.ID != r.ID {
				a.addEvidence(describe())
			}
		}
	}
	for _, l := range c.history.Logs {
		for _, r := range l.Records {
			look(l.Partition, r, func() string {
				return fmt.Sprintf("final read: %v at offset %d of partition %d from agent %d between %v and %v",
					r.ID, r.Offset, l.Partition, l.Agent, l.Invoked, l.Completed)
			})
		}
	}
	for i, consumer := range c.history.Consumers {
		for _, s := range consumer.Sessions {
			for _, poll := range s.Polls {
				for _, r := range poll.Records {
					look(s.Partition, r, func() string {
						return fmt.Sprintf("consumer %d: %v at offset %d of partition %d from agent %d between %v and %v",
							i, r.ID, r.Offset, s.Partition, poll.Agent, poll.Invoked, poll.Completed)
					})
				}
			}
		}
	}
}

func (a *Anomaly) addEvidence(line string) {
	if len(a.Evidence) < maxEvidence && !slices.Contains(a.Evidence, line) {
		a.Evidence = append(a.Evidence, line)
	}
}

// describeSend says what became of a record.
func (c *checker) describeSend(id ID) string {
	s := c.sent(id)
	sent := fmt.Sprintf("producer %d: sent record %d to partition %d at %v, ", id.Producer, id.Sequence, s.Partition, s.Invoked)
	switch s.Outcome {
	case Acked:
		return sent + fmt.Sprintf("acknowledged at %v with offset %d", s.Completed, s.Offset)
	case Failed:
		return sent + fmt.Sprintf("failed for certain at %v", s.Completed)
	default:
		return sent + "outcome unknown"
	}
}
