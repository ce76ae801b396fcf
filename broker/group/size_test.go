package group

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/broker/group/assignor"
)

// TestGroupSize has members say more of themselves than a record may hold.
func TestGroupSize(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.InitialRebalanceDelay = 0
	ask := func(m *machine, request any) (any, error) {
		c := newCall()
		for _, e := range append(m.step(0, c, request), m.expire(0)...) {
			if r, ok := e.(reply); ok && r.call == c {
				return r.answer, r.err
			}
		}
		return nil, nil // it waits
	}
	most := make([]byte, maxGroupBytes*3/4)
	want := func(t *testing.T, err error, code *kerr.Error) {
		t.Helper()
		if code == nil && err != nil || code != nil && !errors.Is(err, code) {
			t.Fatalf("%v, want %v", err, code)
		}
	}

	t.Run("classic", func(t *testing.T) {
		m, err := newMachine(&cfg, noTopics, 0, nil)
		want(t, err, nil)
		join := func(id string, metadata []byte) (JoinResponse, error) {
			r := joinRequest("g", id)
			r.Protocols, r.newMemberID = []Protocol{{"range", metadata}}, "new"
			answer, err := ask(m, &r)
			joined, _ := answer.(JoinResponse)
			return joined, err
		}
		first, err := join("", most)
		want(t, err, nil)
		_, err = join("", most)
		want(t, err, kerr.GroupMaxSizeReached)
		sync := SyncRequest{Membership: Membership{Group: "g", MemberID: first.MemberID, Generation: first.Generation}}
		sync.Assignments = []Assignment{{MemberID: first.MemberID, Data: most}, {MemberID: first.MemberID, Data: most}}
		_, err = ask(m, &sync)
		want(t, err, kerr.UnknownServerError)
		sync.Assignments = sync.Assignments[:1]
		_, err = ask(m, &sync)
		want(t, err, nil)
		_, err = join(first.MemberID, most[1:])
		want(t, err, nil)
	})

	t.Run("consumer", func(t *testing.T) {
		m, err := newMachine(&cfg, noTopics, 0, nil)
		want(t, err, nil)
		join := func(id, topic string) error {
			_, err := ask(m, &ConsumerHeartbeatRequest{Group: "g", MemberID: id, Topics: []string{topic}, Owned: assignor.Partitions{}, RebalanceTimeout: time.Second})
			return err
		}
		topic := strings.Repeat("t", len(most))
		want(t, join("a", topic), nil)
		want(t, join("b", topic), kerr.GroupMaxSizeReached)
		want(t, join("b", "t"), nil)
		_, err = ask(m, &ConsumerHeartbeatRequest{Group: "g", MemberID: "b", Epoch: 2, Topics: []string{topic}, RebalanceTimeout: -1})
		want(t, err, kerr.GroupMaxSizeReached)
		want(t, join("a", topic[1:]), nil)
		classic := joinRequest("g", "c")
		classic.Protocols = []Protocol{{"range", most}}
		_, err = ask(m, &classic)
		want(t, err, kerr.GroupMaxSizeReached)
	})
}
