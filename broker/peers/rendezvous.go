package peers

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/streamhouse/streamhouse/metadata"
)

// watched returns those of the agents whose watcher the agent self is. With the
// same agents all come to the same result, and one that comes or goes moves few
// watches (highest random weight).
func watched(self int32, agents []metadata.Agent) []metadata.Agent {
	var of []metadata.Agent
	for _, a := range agents {
		if a.NodeID == self {
			continue
		}
		others := make([]int32, 0, len(agents))
		for _, o := range agents {
			if o.NodeID != a.NodeID {
				others = append(others, o.NodeID)
			}
		}
		slices.SortFunc(others, func(x, y int32) int { return cmp.Compare(weight(y, a.NodeID), weight(x, a.NodeID)) })
		if slices.Contains(others[:min(metadata.WatchersOfEach, len(others))], self) {
			of = append(of, a)
		}
	}
	return of
}

func weight(watcher, of int32) uint64 {
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], uint32(watcher))
	binary.BigEndian.PutUint32(b[4:], uint32(of))
	return xxhash.Sum64(b[:])
}
