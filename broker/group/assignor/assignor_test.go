package assignor

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// topic is the n-th topic's id; ids ascend with n.
func topic(n int) uuid.UUID {
	var id uuid.UUID
	binary.BigEndian.PutUint32(id[:], uint32(n+1))
	return id
}

func topics(n ...int) []uuid.UUID {
	ids := make([]uuid.UUID, len(n))
	for i := range n {
		ids[i] = topic(n[i])
	}
	return ids
}

func counts(n ...int32) map[uuid.UUID]int32 {
	partitions := make(map[uuid.UUID]int32)
	for i := range n {
		partitions[topic(i)] = n[i]
	}
	return partitions
}

func show(p Partitions) string {
	out := ""
	for _, t := range p.Topics() {
		out += fmt.Sprintf("%d:%v ", binary.BigEndian.Uint32(t[:])-1, p[t])
	}
	return out
}

func want(t *testing.T, got []Partitions, want ...string) {
	t.Helper()
	for i := range want {
		if show(got[i]) != want[i] {
			t.Errorf("member %d has %s, not %s", i, show(got[i]), want[i])
		}
	}
}

func TestRangeIsCoPartitioned(t *testing.T) {
	t.Parallel()
	members := []Member{{ID: "b", Topics: topics(0, 1)}, {ID: "a", Topics: topics(0, 1)}}
	want(t, Range(members, counts(3, 3)), "0:[2] 1:[2] ", "0:[0 1] 1:[0 1] ")
}

func TestRangeOfStaticMembersOutlivesMemberIDs(t *testing.T) {
	t.Parallel()
	members := []Member{
		{ID: "a", Topics: topics(0)},
		{ID: "z", InstanceID: "1", Topics: topics(0)},
		{ID: "b", InstanceID: "2", Topics: topics(0)},
	}
	got := []string{"0:[4] ", "0:[0 1] ", "0:[2 3] "}
	want(t, Range(members, counts(5)), got...)
	members[1].ID, members[2].ID = "b", "z"
	want(t, Range(members, counts(5)), got...)
}

func TestRangeOfMoreMembersThanPartitions(t *testing.T) {
	t.Parallel()
	members := []Member{{ID: "a", Topics: topics(0, 1)}, {ID: "b", Topics: topics(0)}, {ID: "c", Topics: topics(1)}}
	want(t, Range(members, counts(1, 2)), "0:[0] 1:[0] ", "", "1:[1] ")
}

// A chain: a can give to b only, and b to c.
func TestUniformMovesAlongChains(t *testing.T) {
	t.Parallel()
	members := []Member{
		{ID: "a", Topics: topics(0), Target: Partitions{topic(0): {0, 1, 2}}},
		{ID: "b", Topics: topics(0, 1), Target: Partitions{topic(1): {0, 1}}},
		{ID: "c", Topics: topics(1), Target: Partitions{topic(1): {2}}},
	}
	want(t, Uniform(members, counts(3, 3)), "0:[0 1] ", "0:[2] 1:[0] ", "1:[1 2] ")
}

func TestUniformFavoursWhoHasLittleToChooseFrom(t *testing.T) {
	t.Parallel()
	members := []Member{{ID: "a", Topics: topics(0, 1)}, {ID: "b", Topics: topics(0)}}
	want(t, Uniform(members, counts(2, 2)), "1:[0 1] ", "0:[0 1] ")
}

func TestNobodyAndNothing(t *testing.T) {
	t.Parallel()
	for name, assign := range ByName {
		if got := assign(nil, counts(1)); len(got) != 0 {
			t.Errorf("%s of nobody: %v", name, got)
		}
		got := assign([]Member{{ID: "a"}, {ID: "b", Topics: topics(7)}}, counts(1))
		want(t, got, "", "")
	}
}

// group draws members and topics. Members have targets of other topics, of
// partitions that are gone, and such as others have too.
func group(t *rapid.T, homogeneous bool) ([]Member, map[uuid.UUID]int32) {
	n := rapid.IntRange(1, 6).Draw(t, "topics")
	partitions := make(map[uuid.UUID]int32)
	for i := range n {
		partitions[topic(i)] = int32(rapid.IntRange(0, 9).Draw(t, "partitions"))
	}
	subset := func() []uuid.UUID {
		var list []uuid.UUID
		for i := range n {
			if rapid.Bool().Draw(t, "subscribes") {
				list = append(list, topic(i))
			}
		}
		return list
	}
	members := make([]Member, rapid.IntRange(1, 8).Draw(t, "members"))
	common := subset()
	for i := range members {
		m := Member{ID: fmt.Sprint("m", i), Topics: common, Target: make(Partitions)}
		if !homogeneous {
			m.Topics = subset()
		}
		if rapid.Bool().Draw(t, "static") {
			m.InstanceID = fmt.Sprint("i", i)
		}
		for i := range n {
			for p := range int32(10) {
				if rapid.IntRange(0, 5).Draw(t, "had") == 0 {
					m.Target[topic(i)] = append(m.Target[topic(i)], p)
				}
			}
		}
		members[i] = m
	}
	return members, partitions
}

// checkAssigned checks that each partition of a topic with subscribers is
// assigned to one of these, once.
func checkAssigned(t *rapid.T, members []Member, partitions map[uuid.UUID]int32, got []Partitions) {
	owner := make(map[slot]int)
	for i, p := range got {
		for id, list := range p {
			if len(list) == 0 || !slices.IsSorted(list) || !slices.Contains(members[i].Topics, id) {
				t.Fatalf("member %d has %s", i, show(p))
			}
			for _, n := range list {
				if o, taken := owner[slot{id, n}]; taken || n < 0 || n >= partitions[id] {
					t.Fatalf("members %d and %d have %s", i, o, show(p))
				}
				owner[slot{id, n}] = i
			}
		}
	}
	for id, n := range partitions {
		subscribed := slices.ContainsFunc(members, func(m Member) bool { return slices.Contains(m.Topics, id) })
		for p := range n {
			if _, assigned := owner[slot{id, p}]; assigned != subscribed {
				t.Fatalf("partition %d of %s: assigned %v, subscribed %v", p, id, assigned, subscribed)
			}
		}
	}
}

func TestEveryPartitionIsAssignedOnceAndAlwaysTheSame(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		members, partitions := group(t, rapid.Bool().Draw(t, "homogeneous"))
		order := rapid.Permutation(slices.Collect(func(yield func(int) bool) {
			for i := range members {
				if !yield(i) {
					return
				}
			}
		})).Draw(t, "order")
		for name, assign := range ByName {
			got := assign(members, partitions)
			checkAssigned(t, members, partitions, got)
			shuffled := make([]Member, len(members))
			for to, from := range order {
				shuffled[to] = members[from]
			}
			again := assign(shuffled, partitions)
			for to, from := range order {
				if !again[to].Equal(got[from]) {
					t.Fatalf("%s depends on the order of the members", name)
				}
			}
		}
	})
}

func TestUniformIsBalanced(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		homogeneous := rapid.Bool().Draw(t, "homogeneous")
		members, partitions := group(t, homogeneous)
		got := Uniform(members, partitions)
		for a := range members {
			for b := range members {
				if got[a].Count() < got[b].Count()+2 {
					continue
				}
				if homogeneous {
					t.Fatalf("loads %d and %d", got[a].Count(), got[b].Count())
				}
				for _, id := range members[b].Topics {
					if len(got[a][id]) > 0 {
						t.Fatalf("%d of %s could go from member %d (%d) to %d (%d)", got[a][id][0], id, a, got[a].Count(), b, got[b].Count())
					}
				}
			}
		}
	})
}

// What is assigned stays: members come, go and the group is balanced by as few
// moves as possible.
func TestUniformMovesLittle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		members, partitions := group(t, true)
		settle := func() {
			for i, p := range Uniform(members, partitions) {
				members[i].Target = p
			}
		}
		settle()
		before := slices.Clone(members)
		settle()
		for i := range members {
			if !members[i].Target.Equal(before[i].Target) {
				t.Fatalf("moved %s to %s for nothing", show(before[i].Target), show(members[i].Target))
			}
		}
		if rapid.Bool().Draw(t, "join") {
			members = append(members, Member{ID: "l", Topics: members[0].Topics})
			settle()
			last := len(members) - 1
			checkOnlyGains(t, before, members, last)
			return
		}
		members = members[1:]
		if len(members) > 0 {
			settle()
			for i := range members {
				for id, list := range before[i+1].Target {
					for _, p := range list {
						if !members[i].Target.Contains(id, p) {
							t.Fatalf("member %s lost %s/%d as another left", members[i].ID, id, p)
						}
					}
				}
			}
		}
	})
}

// checkOnlyGains checks that nobody but the newcomer got anything.
func checkOnlyGains(t *rapid.T, before, after []Member, newcomer int) {
	for i := range before {
		for id, list := range after[i].Target {
			for _, p := range list {
				if i != newcomer && !before[i].Target.Contains(id, p) {
					t.Fatalf("member %s got %s/%d as another joined", before[i].ID, id, p)
				}
			}
		}
	}
}

// BenchmarkAssign is of a group of 1,000 members and 10,000 partitions.
func BenchmarkAssign(b *testing.B) {
	const membersN, topicsN, perTopic = 1000, 100, 100
	partitions := make(map[uuid.UUID]int32)
	all := make([]uuid.UUID, topicsN)
	for i := range topicsN {
		all[i] = topic(i)
		partitions[topic(i)] = perTopic
	}
	homogeneous := make([]Member, membersN)
	heterogeneous := make([]Member, membersN)
	for i := range membersN {
		id := fmt.Sprintf("m%04d", i)
		homogeneous[i] = Member{ID: id, Topics: all}
		// Twenty kinds that overlap.
		heterogeneous[i] = Member{ID: id, Topics: all[i%20*4 : i%20*4+24]}
	}
	for _, group := range []struct {
		name    string
		members []Member
	}{{"homogeneous", homogeneous}, {"heterogeneous", heterogeneous}} {
		for _, name := range []string{"uniform", "range"} {
			assign := ByName[name]
			b.Run(name+"/"+group.name+"/first", func(b *testing.B) {
				for b.Loop() {
					assign(group.members, partitions)
				}
			})
			settled := slices.Clone(group.members)
			for i, p := range assign(settled, partitions) {
				settled[i].Target = p
			}
			settled[0].Target = nil // a member restarts under another id
			b.Run(name+"/"+group.name+"/join", func(b *testing.B) {
				for b.Loop() {
					assign(settled, partitions)
				}
			})
		}
	}
}
