package check

import (
	"cmp"
	"maps"
	"slices"
)

// register is what a history says of the position that one group committed for one partition.
type register struct {
	partition int32
	group     string
	values    map[int64][]*Commit // that did not certainly fail, by offset
	moments   []registerMoment
}

// never is before all commits.
const never Instant = -1 << 63

// registerMoment is an instant at which a position was asked for, or at which a commit or such a question completed.
type registerMoment struct {
	at       Instant
	commit   *Commit
	position *Position
	asking   bool
}

// checkCommits demands that each committed position behaves as one register does, which any member may write: what is
// told was committed, and not overwritten before it was asked for.
//
// The rule follows single commits through time, so it may pass a history that no one order of the commits explains; it
// never blames one that an order does explain.
func (c *checker) checkCommits() {
	type key struct {
		partition int32
		group     string
	}
	registers := make(map[key]*register)
	get := func(partition int32, group string) *register {
		k := key{partition, group}
		if registers[k] == nil {
			registers[k] = &register{partition: partition, group: group, values: make(map[int64][]*Commit)}
		}
		return registers[k]
	}
	for i := range c.history.Commits {
		get(c.history.Commits[i].Partition, c.history.Commits[i].Group).addCommit(&c.history.Commits[i])
	}
	for i := range c.history.Positions {
		position := &c.history.Positions[i]
		r := get(position.Partition, position.Group)
		r.moments = append(r.moments,
			registerMoment{at: position.Invoked, position: position, asking: true},
			registerMoment{at: position.Completed, position: position})
	}
	for _, k := range slices.SortedFunc(maps.Keys(registers), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.group, b.group))
	}) {
		c.checkRegister(registers[k])
	}
}

func (r *register) addCommit(commit *Commit) {
	if commit.Outcome == Failed {
		return
	}
	r.values[commit.Offset] = append(r.values[commit.Offset], commit)
	if commit.Outcome == Acked {
		r.moments = append(r.moments, registerMoment{at: commit.Completed, commit: commit})
	}
}

// checkRegister goes through the moments in their order. newest is such that the register holds something whose commit
// completed at newest or later: whatever completed before was overwritten.
func (c *checker) checkRegister(r *register) {
	slices.SortStableFunc(r.moments, func(a, b registerMoment) int {
		if a.at == b.at && a.asking != b.asking {
			if a.asking {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.at, b.at)
	})
	newest := never
	oldest := make(map[*Position]Instant) // that the commit which was told can have been invoked
	for _, m := range r.moments {
		switch {
		case m.commit != nil:
			newest = max(newest, m.commit.Invoked)
		case !m.asking:
			newest = max(newest, oldest[m.position])
		case m.position.Offset == NoOffset:
			oldest[m.position] = never
			if newest != never {
				c.reportRegister(CommitWentBack, r, m.position, "is told to have committed none")
			}
		default:
			invoked, kind := r.explain(m.position, newest)
			oldest[m.position] = invoked
			switch kind {
			case CommitWentBack:
				c.reportRegister(kind, r, m.position, "is told this position, which was overwritten before")
			case PhantomCommit:
				c.reportRegister(kind, r, m.position, "is told this position, which nobody committed")
			}
		}
	}
}

// explain returns when the earliest commit was invoked that the position can be of, or the kind of anomaly if there is
// none.
func (r *register) explain(position *Position, newest Instant) (Instant, Kind) {
	kind, earliest, explained := PhantomCommit, never, false
	for _, commit := range r.values[position.Offset] {
		switch {
		case commit.Invoked >= position.Completed:
		case commit.Outcome == Acked && commit.Completed < newest:
			kind = CommitWentBack
		case !explained || commit.Invoked < earliest:
			earliest, explained = commit.Invoked, true
		}
	}
	if explained {
		return earliest, ""
	}
	return never, kind
}

func (c *checker) reportRegister(kind Kind, r *register, position *Position, detail string) {
	c.wrongOffset(kind, r.partition, position.Offset, "group %q %s: asked agent %d between %v and %v",
		r.group, detail, position.Agent, position.Invoked, position.Completed)
}
