package assignor

import (
	"cmp"
	"slices"

	"github.com/google/uuid"
)

// Range assigns a range of each topic to each of its subscribers. Subscribers are
// in the order of their instance ids, and then, those who have none, of their
// member ids; so the ranges of static members outlive restarts. The first
// subscribers' ranges are longer by one where the partitions can't be divided.
//
// If all members subscribe to the same topics, then topics with as many partitions
// are co-partitioned: each member has the same range of them.
func Range(members []Member, partitions map[uuid.UUID]int32) []Partitions {
	subscribers := make(map[uuid.UUID][]int)
	for _, i := range rangeOrder(members) {
		for _, topic := range members[i].Topics {
			if partitions[topic] > 0 {
				subscribers[topic] = append(subscribers[topic], i)
			}
		}
	}
	assigned := make([]Partitions, len(members))
	for i := range assigned {
		assigned[i] = make(Partitions)
	}
	for topic, list := range subscribers {
		share, longer := int(partitions[topic])/len(list), int(partitions[topic])%len(list)
		next := int32(0)
		for place, i := range list {
			n := share
			if place < longer {
				n++
			}
			if n > 0 {
				assigned[i][topic] = ascending(next, n)
				next += int32(n)
			}
		}
	}
	return assigned
}

func rangeOrder(members []Member) []int {
	order := make([]int, len(members))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := &members[a], &members[b]
		switch {
		case x.InstanceID != "" && y.InstanceID != "":
			return cmp.Compare(x.InstanceID, y.InstanceID)
		case x.InstanceID != "":
			return -1
		case y.InstanceID != "":
			return 1
		}
		return cmp.Compare(x.ID, y.ID)
	})
	return order
}

// ascending are n partitions from first on.
func ascending(first int32, n int) []int32 {
	list := make([]int32, n)
	for i := range list {
		list[i] = first + int32(i)
	}
	return list
}
