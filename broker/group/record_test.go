package group

import (
	"testing"

	"github.com/streamhouse/streamhouse/broker/group/assignor"
	"github.com/streamhouse/streamhouse/metadata"
)

// FuzzLoad loads what may be in the store of a classic group: it is refused, or makes a group of which
// all that must hold does, and which is stored as it was loaded.
func FuzzLoad(f *testing.F) {
	for _, record := range []string{
		``, `{}`, `{"version":1,"type":"classic","state":"Empty","generation":3,"protocolType":"consumer"}`,
		`{"version":1,"type":"classic","state":"Stable","generation":1,"protocol":"p","leader":"m","members":[{"id":"m","instance":"i","clientId":"c","clientHost":"h","sessionTimeoutMs":1,"rebalanceTimeoutMs":2,"protocols":[{"name":"p","metadata":"AA=="}],"assignment":"AQ=="}]}`,
		`{"version":1,"type":"classic","state":"CompletingRebalance","leader":"m","members":[{"id":"m"},{"id":"m"}]}`,
		`{"version":1,"type":"classic","state":"Empty","members":[{"id":"m"}]}`,
		`{"version":1,"type":"classic","state":"Stable","protocolType":"consumer","leader":"m","members":[{"id":"m"}]}`,
	} {
		f.Add(record)
	}
	cfg := DefaultConfig()
	f.Fuzz(func(t *testing.T, record string) {
		load := func(record string) (*machine, error) {
			return newMachine(&cfg, noTopics, 0, []metadata.StoredGroup{{GroupRecord: metadata.GroupRecord{Group: "g", Record: record}}})
		}
		m, err := load(record)
		if err != nil || m.classic("g") == nil {
			return
		}
		if err := m.check(); err != nil {
			t.Fatal(err)
		}
		stored := encodeRecord(m.groups["g"].record())
		again, err := load(stored)
		if err != nil {
			t.Fatalf("load what was stored: %v", err)
		}
		if got := encodeRecord(again.groups["g"].record()); got != stored {
			t.Errorf("stored\n%s\nand then\n%s", stored, got)
		}
		// Whoever joins makes it one of the consumer protocol, if it can become one.
		m.step(0, newCall(), &ConsumerHeartbeatRequest{Group: "g", MemberID: "a", Topics: []string{"t"}, Owned: assignor.Partitions{}})
		if err := m.check(); err != nil {
			t.Fatal(err)
		}
		m.expire(cfg.RetentionCheckInterval)
		if err := m.check(); err != nil {
			t.Error(err)
		}
	})
}
