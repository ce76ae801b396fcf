package assignor

import (
	"bytes"
	"slices"

	"github.com/google/uuid"
)

// Partitions are partitions by the id of their topic, ascending and none twice. A
// topic without any is not in it. It is not changed once it was handed over, so
// that it may be shared.
type Partitions map[uuid.UUID][]int32

// Count returns how many partitions there are.
func (p Partitions) Count() int {
	n := 0
	for _, list := range p {
		n += len(list)
	}
	return n
}

// Contains says whether a partition is among them.
func (p Partitions) Contains(topic uuid.UUID, partition int32) bool {
	_, found := slices.BinarySearch(p[topic], partition)
	return found
}

// Equal says whether both have the same partitions.
func (p Partitions) Equal(other Partitions) bool {
	if len(p) != len(other) {
		return false
	}
	for topic, list := range p {
		if !slices.Equal(list, other[topic]) {
			return false
		}
	}
	return true
}

// Topics returns the topics in the order of their ids.
func (p Partitions) Topics() []uuid.UUID {
	topics := make([]uuid.UUID, 0, len(p))
	for topic := range p {
		topics = append(topics, topic)
	}
	slices.SortFunc(topics, compareTopics)
	return topics
}

func compareTopics(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }

// Member is a member of a group, as assignors see it.
type Member struct {
	ID         string
	InstanceID string // of a static member; else ""
	// Topics are the topics to which it subscribes, ascending and none twice.
	Topics []uuid.UUID
	// Target is what was assigned to it before.
	Target Partitions
}

// Assignor assigns partitions to members: the i-th result is members[i]'s.
// partitions says how many each topic has; a topic without an entry has none. The
// order of the members does not matter.
type Assignor func(members []Member, partitions map[uuid.UUID]int32) []Partitions

// ByName returns Kafka's name of each assignor.
var ByName = map[string]Assignor{
	"uniform": Uniform,
	"range":   Range,
}
