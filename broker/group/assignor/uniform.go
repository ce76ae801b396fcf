package assignor

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"slices"

	"github.com/google/uuid"
)

// Uniform assigns as many partitions to each member as to any other, as far as
// subscriptions allow: no partition, and no chain of partitions that each move on
// to the next member, could go from one member to another that has two fewer. It
// leaves members what they have as long as that is balanced, and so moves as few
// partitions as balance needs.
//
// Members that subscribe to the same topics are of one kind, and topics with
// subscribers of the same kinds are one class. In a group in which all subscribe
// to the same, which is the usual one, there is one of each.
func Uniform(members []Member, partitions map[uuid.UUID]int32) []Partitions {
	u := newUniform(members, partitions)
	unassigned := u.retain(partitions)
	u.assign(unassigned)
	u.balance()
	return u.result()
}

// slot is a partition.
type slot struct {
	topic     uuid.UUID
	partition int32
}

// kind are members that subscribe to the same topics.
type kind struct {
	topics  []uuid.UUID
	members []int
	classes []int // ascending
}

// class are topics to which the same members subscribe.
type class struct {
	kinds  []int // ascending
	topics []uuid.UUID
}

// uniform is an assignment in the making. Members are named by their place in
// the order of their ids.
type uniform struct {
	members []Member
	order   []int // place of a member in what the caller gave
	kinds   []kind
	kindOf  []int // by member
	classes []class
	classOf map[uuid.UUID]int

	// held is what each member has, by class. What it had before comes first, so
	// that what moves from the end is rather what it has not got yet.
	held []map[int][]slot
	load []int // how much that is
}

func newUniform(members []Member, partitions map[uuid.UUID]int32) *uniform {
	u := &uniform{
		members: members,
		order:   make([]int, len(members)),
		kindOf:  make([]int, len(members)),
		classOf: make(map[uuid.UUID]int),
		held:    make([]map[int][]slot, len(members)),
		load:    make([]int, len(members)),
	}
	for m := range u.order {
		u.order[m] = m
		u.held[m] = make(map[int][]slot)
	}
	slices.SortFunc(u.order, func(a, b int) int { return cmp.Compare(members[a].ID, members[b].ID) })
	for m := range u.order {
		u.kindOf[m] = u.kind(u.member(m).Topics)
		k := &u.kinds[u.kindOf[m]]
		k.members = append(k.members, m)
	}
	u.classify(partitions)
	return u
}

func (u *uniform) member(m int) *Member { return &u.members[u.order[m]] }

// kind returns the kind of members with these topics.
func (u *uniform) kind(topics []uuid.UUID) int {
	for i := range u.kinds {
		if slices.Equal(u.kinds[i].topics, topics) {
			return i
		}
	}
	u.kinds = append(u.kinds, kind{topics: topics})
	return len(u.kinds) - 1
}

// classify finds the classes of topics, in the order of their first topics.
func (u *uniform) classify(partitions map[uuid.UUID]int32) {
	kinds := make(map[uuid.UUID][]int)
	var topics []uuid.UUID
	for k := range u.kinds {
		for _, t := range u.kinds[k].topics {
			if partitions[t] > 0 {
				if kinds[t] == nil {
					topics = append(topics, t)
				}
				kinds[t] = append(kinds[t], k)
			}
		}
	}
	slices.SortFunc(topics, compareTopics)
	known := make(map[string]int)
	var key []byte
	for _, t := range topics {
		key = key[:0]
		for _, k := range kinds[t] {
			key = binary.AppendUvarint(key, uint64(k))
		}
		c, ok := known[string(key)]
		if !ok {
			c = len(u.classes)
			known[string(key)] = c
			u.classes = append(u.classes, class{kinds: kinds[t]})
			for _, k := range kinds[t] {
				u.kinds[k].classes = append(u.kinds[k].classes, c)
			}
		}
		u.classes[c].topics = append(u.classes[c].topics, t)
		u.classOf[t] = c
	}
}

// subscribes says whether the member subscribes to the topics of a class.
func (u *uniform) subscribes(m, c int) bool {
	_, found := slices.BinarySearch(u.classes[c].kinds, u.kindOf[m])
	return found
}

func (u *uniform) give(m, c int, s slot) {
	u.held[m][c] = append(u.held[m][c], s)
	u.load[m]++
}

func (u *uniform) take(m, c int) slot {
	list := u.held[m][c]
	s := list[len(list)-1]
	u.held[m][c] = list[:len(list)-1]
	u.load[m]--
	return s
}

// retain leaves members what they have and may keep. It returns what nobody has,
// by class.
func (u *uniform) retain(partitions map[uuid.UUID]int32) [][]slot {
	owned := make(map[uuid.UUID][]bool, len(u.classOf))
	for t := range u.classOf {
		owned[t] = make([]bool, partitions[t])
	}
	for m := range u.held {
		target := u.member(m).Target
		for _, t := range target.Topics() {
			c, ok := u.classOf[t]
			if !ok || !u.subscribes(m, c) {
				continue
			}
			for _, p := range target[t] {
				if int(p) < len(owned[t]) && !owned[t][p] {
					owned[t][p] = true
					u.give(m, c, slot{t, p})
				}
			}
		}
	}
	unassigned := make([][]slot, len(u.classes))
	for c := range u.classes {
		for _, t := range u.classes[c].topics {
			for p, taken := range owned[t] {
				if !taken {
					unassigned[c] = append(unassigned[c], slot{t, int32(p)})
				}
			}
		}
	}
	return unassigned
}

// assign gives what nobody has to the members that have least; first where there
// are fewest to choose from.
func (u *uniform) assign(unassigned [][]slot) {
	order := make([]int, len(u.classes))
	size := make([]int, len(u.classes))
	for c := range u.classes {
		order[c] = c
		for _, k := range u.classes[c].kinds {
			size[c] += len(u.kinds[k].members)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(size[a], size[b]) })
	for _, c := range order {
		if len(unassigned[c]) == 0 {
			continue
		}
		least := leastLoaded{load: u.load}
		for _, k := range u.classes[c].kinds {
			least.members = append(least.members, u.kinds[k].members...)
		}
		heap.Init(&least)
		for _, s := range unassigned[c] {
			u.give(least.members[0], c, s)
			heap.Fix(&least, 0)
		}
	}
}

// balance moves partitions from members that have much to such as have two fewer,
// the most loaded first, until none can be moved. Each move makes the sum of the
// squares of the loads smaller, so it ends.
func (u *uniform) balance() {
	for moved := true; moved; {
		moved = false
		stuck := make([]bool, len(u.load))
		for {
			from, least := u.extremes(stuck)
			if from < 0 || u.load[from]-least < 2 {
				break
			}
			if u.relieve(from) {
				moved = true
			} else {
				stuck[from] = true
			}
		}
	}
}

// extremes returns the most loaded member that is not stuck, -1 if all are, and
// the least load of any.
func (u *uniform) extremes(stuck []bool) (most, least int) {
	most = -1
	for m, load := range u.load {
		if !stuck[m] && (most < 0 || load > u.load[most]) {
			most = m
		}
		if m == 0 || load < least {
			least = load
		}
	}
	return most, least
}

// relieve takes one partition off a member, by the shortest chain of moves that
// ends at a member with at least two fewer. It says whether there is one.
func (u *uniform) relieve(from int) bool {
	type step struct{ member, class int } // who gives a partition of which class
	reached := make([]step, len(u.load))
	for m := range reached {
		reached[m].member = -1
	}
	reached[from].member = from
	seen := make([]bool, len(u.classes))
	for queue := []int{from}; len(queue) > 0; queue = queue[1:] {
		giver := queue[0]
		for _, c := range u.kinds[u.kindOf[giver]].classes {
			if seen[c] || len(u.held[giver][c]) == 0 {
				continue
			}
			seen[c] = true
			taker := -1
			for _, k := range u.classes[c].kinds {
				for _, m := range u.kinds[k].members {
					if reached[m].member >= 0 {
						continue
					}
					reached[m] = step{giver, c}
					queue = append(queue, m)
					if taker < 0 || u.load[m] < u.load[taker] {
						taker = m
					}
				}
			}
			if taker < 0 || u.load[taker] > u.load[from]-2 {
				continue
			}
			for m := taker; m != from; m = reached[m].member {
				u.give(m, reached[m].class, u.take(reached[m].member, reached[m].class))
			}
			return true
		}
	}
	return false
}

// result is the assignment in the caller's order.
func (u *uniform) result() []Partitions {
	assigned := make([]Partitions, len(u.members))
	for m, held := range u.held {
		p := make(Partitions)
		for _, slots := range held {
			for _, s := range slots {
				p[s.topic] = append(p[s.topic], s.partition)
			}
		}
		for _, list := range p {
			slices.Sort(list)
		}
		assigned[u.order[m]] = p
	}
	return assigned
}

// leastLoaded is a heap of members, the least loaded on top.
type leastLoaded struct {
	members []int
	load    []int
}

func (h *leastLoaded) Len() int { return len(h.members) }

func (h *leastLoaded) Less(i, j int) bool {
	a, b := h.members[i], h.members[j]
	return cmp.Or(cmp.Compare(h.load[a], h.load[b]), cmp.Compare(a, b)) < 0
}

func (h *leastLoaded) Swap(i, j int) { h.members[i], h.members[j] = h.members[j], h.members[i] }

// Push implements heap.Interface.
func (h *leastLoaded) Push(any) { panic("assignor: members don't come") }

// Pop implements heap.Interface.
func (h *leastLoaded) Pop() any { panic("assignor: members don't go") }
