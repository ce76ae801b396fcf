package group

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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

// What clients say of themselves need not be text. The next coordinator knows it to
// the byte all the same: if ids that differ came to be one, none could load the shard.
func TestRecordsKeepWhatIsNoText(t *testing.T) {
	cfg := DefaultConfig()
	for name, requests := range map[string][]any{
		"consumer": {
			&ConsumerHeartbeatRequest{Group: "g", MemberID: "\xff", ClientID: "\xc3", Rack: "\x80", Topics: []string{"a\xfe"}, Owned: assignor.Partitions{}},
			&ConsumerHeartbeatRequest{Group: "g", MemberID: "\xfe", InstanceID: "\xfe", Topics: []string{"\x00"}, Owned: assignor.Partitions{}},
			&ConsumerHeartbeatRequest{Group: "g", MemberID: "\ufffd", InstanceID: "\xff", Topics: []string{}, Owned: assignor.Partitions{}},
		},
		"classic": {
			&JoinRequest{Group: "g", InstanceID: "\xff", newMemberID: "\xff-1", ClientID: "\xff", ProtocolType: "\xfa", Protocols: []Protocol{{Name: "\xfb"}}},
			&JoinRequest{Group: "g", InstanceID: "\xfe", newMemberID: "\xfe-1", ClientID: "\xfe", ProtocolType: "\xfa", Protocols: []Protocol{{Name: "\xfb"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := newMachine(&cfg, noTopics, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range requests {
				m.step(0, newCall(), r)
			}
			m.expire(cfg.InitialRebalanceDelay)
			m.expire(2 * cfg.InitialRebalanceDelay)
			record := m.groups["g"].record()
			again, err := newMachine(&cfg, noTopics, 0, []metadata.StoredGroup{{GroupRecord: metadata.GroupRecord{Group: "g", Record: encodeRecord(record)}}})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(record, again.groups["g"].record(), cmp.AllowUnexported(classicRecord{}, consumerRecord{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("the next coordinator has another group (-want +got):\n%s", diff)
			}
		})
	}
}
