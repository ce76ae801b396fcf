package ingest

import (
	"slices"
	"time"
)

// pace spaces the commits of agents on one metadata store, so that what all
// of them ask of it under steady load does not grow with their number: from one
// commit to the next an agent leaves Config.CommitSpacing for each of the others.
// After a quiet time some commits are made at once.
//
// To wait is of use only while more requests come. Those who are answered by a
// flush and then send their next request, as a producer does that has one in
// flight, are in the next buffer soon, and there is nobody else to wait for. So
// what waits in vain is learned: once no more than n requests came in several
// waits in a row, n requests wait for nothing, until there are more in the pool.
type pace struct {
	spacing time.Duration // for each other agent
	agents  func() int    // that commit to the store, this one included

	budget bucket // of commits; its rate follows the number of agents
	waited bool   // the open buffer has waited for the budget
	// gathered is how many requests came in each of the last waits, since there
	// were more than expected.
	gathered []int
}

const (
	// bulkBytes is the size from which on a buffer waits for the budget of uploads
	// alone: by then commits are few for what they carry, and producers that send
	// as fast as they are answered would be slowed down.
	bulkBytes   = 256 << 10
	commitBurst = 8 // commits that are made at once after a quiet time
	// vainWaits is how many waits in a row show for how many requests it is vain
	// to wait. With fewer, chance would show it.
	vainWaits = 5
)

func newPace(spacing time.Duration, agents func() int, now time.Time) pace {
	return pace{spacing: spacing, agents: agents, budget: newBucket(0, commitBurst, now)}
}

// wait is the time until the open buffer may be sealed, which has so many
// requests, as one of those in the pool.
func (c *pace) wait(now time.Time, open, pooled int) time.Duration {
	interval := c.spacing * time.Duration(c.agents()-1)
	if interval <= 0 {
		return 0
	}
	switch expected := c.expected(); {
	case expected > 0 && pooled > expected:
		c.gathered = c.gathered[:0]
	case expected > 0 && open == expected:
		return 0
	}
	c.budget.rate = 1 / interval.Seconds()
	wait := c.budget.wait(now, 1)
	c.waited = c.waited || wait > 0 && open > 0
	return wait
}

// expected is for how many requests it is worth to wait; 0: for any number.
func (c *pace) expected() int {
	if len(c.gathered) < vainWaits {
		return 0
	}
	return slices.Max(c.gathered)
}

// sealed takes note that a buffer of so many requests was sealed. Nothing is ever
// owed to the budget: who did not wait for it had nothing to wait for.
func (c *pace) sealed(now time.Time, requests int) {
	c.budget.take(now, min(1, c.budget.levelAt(now)))
	if c.waited {
		c.gathered = append(c.gathered[max(len(c.gathered)-vainWaits+1, 0):], requests)
		c.waited = false
	}
}

// interrupt takes note that the open buffer has waited for nothing: it is sealed for
// another reason than the end of its wait.
func (c *pace) interrupt() { c.waited = false }
