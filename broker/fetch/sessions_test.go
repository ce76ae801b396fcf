package fetch_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/broker/fetch"
)

// client keeps a fetch session as a Kafka client does.
type client struct {
	t        *testing.T
	sessions *fetch.Sessions
	id       int32
	epoch    int32
	byID     bool
}

func named(name string) fetch.SessionPartition {
	return fetch.SessionPartition{PartitionRef: fetch.PartitionRef{Name: name}, MaxBytes: 100, LeaderEpoch: -1}
}

func partitions(names string) (all []fetch.SessionPartition) {
	for name := range strings.FieldsSeq(names) {
		all = append(all, named(name))
	}
	return all
}

// begin sends a fetch of the session and returns its partitions, in order.
func (c *client) begin(add, forget string) (*fetch.SessionFetch, error) {
	req := fetch.SessionRequest{ID: c.id, Epoch: c.epoch, Partitions: partitions(add), ByTopicID: c.byID}
	for _, p := range partitions(forget) {
		req.Forgotten = append(req.Forgotten, p.PartitionRef)
	}
	f, err := c.sessions.Begin(req)
	if err == nil {
		c.id = f.ID
		c.epoch++
	}
	return f, err
}

// answer is what the partitions are answered with, by name; others are empty.
type answer map[string]fetch.SessionAnswer

// step sends a fetch and returns a line of what was fetched and what was answered.
func (c *client) step(add, forget string, answers answer) string {
	c.t.Helper()
	f, err := c.begin(add, forget)
	if err != nil {
		return err.Error()
	}
	var fetched, answered []string
	for i, p := range f.Partitions {
		fetched = append(fetched, p.Name)
		if f.Include(i, answers[p.Name]) {
			answered = append(answered, p.Name)
		}
	}
	return fmt.Sprintf("fetch %s, answer %s", strings.Join(fetched, " "), strings.Join(answered, " "))
}

func (c *client) expect(got, want string) {
	c.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		c.t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSessionAnswersWhatHasChanged(t *testing.T) {
	t.Parallel()
	c := &client{t: t, sessions: fetch.NewSessions()}
	at := func(high int64) fetch.SessionAnswer {
		return fetch.SessionAnswer{High: high, LastStable: high}
	}
	data := at(5)
	data.Records = true
	failed := fetch.SessionAnswer{Error: true}

	c.expect(c.step("a b c", "", answer{"a": at(1)}), "fetch a b c, answer a b c")
	if c.id <= 0 {
		t.Fatalf("session id %d", c.id)
	}
	c.expect(c.step("", "", answer{"a": at(1)}), "fetch a b c, answer ")
	c.expect(c.step("", "", answer{"a": at(2)}), "fetch a b c, answer a")
	c.expect(c.step("", "", answer{"a": {High: 2, LastStable: 1}}), "fetch a b c, answer a")
	c.expect(c.step("", "", answer{"a": {High: 2, LastStable: 1, LogStart: 1}}), "fetch a b c, answer a")
	// Those that had records come last, so that the others get their turn.
	c.expect(c.step("", "", answer{"a": data}), "fetch a b c, answer a")
	c.expect(c.step("", "", answer{"a": at(5), "b": data}), "fetch b c a, answer b")
	c.expect(c.step("", "", answer{"a": at(5), "b": at(5)}), "fetch c a b, answer ")
	// Errors are always told, and followed by the whole truth.
	c.expect(c.step("", "", answer{"a": at(5), "b": at(5), "c": failed}), "fetch c a b, answer c")
	c.expect(c.step("", "", answer{"a": at(5), "b": at(5), "c": failed}), "fetch c a b, answer c")
	c.expect(c.step("", "", answer{"a": at(5), "b": at(5)}), "fetch c a b, answer c")
	// Partitions come and go.
	c.expect(c.step("d", "c", answer{"a": at(5), "b": at(5)}), "fetch a b d, answer d")
	c.expect(c.step("a", "x", answer{"a": at(5), "b": at(5)}), "fetch a b d, answer ")
	// A session of nothing is none.
	c.expect(c.step("", "a b d", nil), "fetch , answer ")
	if c.id != 0 {
		t.Errorf("session id %d of an empty session", c.id)
	}
}

func TestSessionTakesWhatTheClientAsksNow(t *testing.T) {
	t.Parallel()
	c := &client{t: t, sessions: fetch.NewSessions()}
	c.step("a b", "", nil)
	moved := named("a")
	moved.Offset, moved.MaxBytes, moved.LeaderEpoch = 7, 8, 9
	f, err := c.sessions.Begin(fetch.SessionRequest{ID: c.id, Epoch: c.epoch, Partitions: []fetch.SessionPartition{moved}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]fetch.SessionPartition{moved, named("b")}, f.Partitions); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPartitionIsFetchedOnce(t *testing.T) {
	t.Parallel()
	for name, epoch := range map[string]int32{"in a session": 0, "outside": -1} {
		t.Run(name, func(t *testing.T) {
			c := &client{t: t, sessions: fetch.NewSessions(), epoch: epoch}
			c.expect(c.step("a b a", "", nil), "fetch a b, answer a b")
		})
	}
}

func TestSessionErrors(t *testing.T) {
	t.Parallel()
	c := &client{t: t, sessions: fetch.NewSessions()}
	c.step("a", "", nil)
	id := c.id
	for name, test := range map[string]struct {
		req  fetch.SessionRequest
		want error
	}{
		"another id":          {fetch.SessionRequest{ID: id - 1, Epoch: 1}, fetch.ErrSessionNotFound},
		"no id":               {fetch.SessionRequest{Epoch: 1}, fetch.ErrSessionNotFound},
		"an epoch too high":   {fetch.SessionRequest{ID: id, Epoch: 2}, fetch.ErrSessionEpoch},
		"an epoch below zero": {fetch.SessionRequest{ID: id, Epoch: -2}, fetch.ErrSessionEpoch},
		"topic ids":           {fetch.SessionRequest{ID: id, Epoch: 1, ByTopicID: true}, fetch.ErrSessionTopicID},
	} {
		if _, err := c.sessions.Begin(test.req); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	c.expect(c.step("", "", nil), "fetch a, answer ") // an error changes nothing
	c.epoch--
	c.expect(c.step("", "", nil), fetch.ErrSessionEpoch.Error()) // the same again
}

func TestSessionEnds(t *testing.T) {
	t.Parallel()
	c := &client{t: t, sessions: fetch.NewSessions()}
	c.step("a b", "", nil)
	first := c.id

	// A full fetch replaces the session that it names.
	c.epoch = 0
	c.expect(c.step("a", "", nil), "fetch a, answer a")
	if c.id == first || c.id == 0 {
		t.Errorf("session %d after %d", c.id, first)
	}
	if _, err := c.sessions.Begin(fetch.SessionRequest{ID: first, Epoch: 1}); !errors.Is(err, fetch.ErrSessionNotFound) {
		t.Errorf("the session that was replaced: %v", err)
	}

	// The last fetch of a session is answered, and it is gone.
	second := c.id
	c.epoch = -1
	c.expect(c.step("a", "", nil), "fetch a, answer a")
	if _, err := c.sessions.Begin(fetch.SessionRequest{ID: second, Epoch: 1}); c.id != 0 || !errors.Is(err, fetch.ErrSessionNotFound) {
		t.Errorf("the session that was ended: %v", err)
	}

	// Nothing to remember.
	c.id, c.epoch = 0, 0
	if c.step("", "", nil); c.id != 0 {
		t.Errorf("session %d of no partitions", c.id)
	}
}

func TestSessionByTopicID(t *testing.T) {
	t.Parallel()
	sessions := fetch.NewSessions()
	ref := fetch.PartitionRef{ID: uuid.UUID{1}}
	f, err := sessions.Begin(fetch.SessionRequest{ByTopicID: true, Partitions: []fetch.SessionPartition{{PartitionRef: ref}}})
	if err != nil {
		t.Fatal(err)
	}
	f, err = sessions.Begin(fetch.SessionRequest{ID: f.ID, Epoch: 1, ByTopicID: true})
	if err != nil || len(f.Partitions) != 1 || f.Partitions[0].PartitionRef != ref {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err = sessions.Begin(fetch.SessionRequest{ID: f.ID, Epoch: 2}); !errors.Is(err, fetch.ErrSessionTopicID) {
		t.Errorf("continued by names: %v", err)
	}
}

const (
	slots = 1000
	idle  = 2 * time.Minute
)

// fill makes as many sessions as there are slots, of one partition each.
func fill(t *testing.T, sessions *fetch.Sessions) []*client {
	t.Helper()
	all := make([]*client, slots)
	for i := range all {
		all[i] = &client{t: t, sessions: sessions}
		if all[i].step("a", "", nil); all[i].id == 0 {
			t.Fatalf("no slot for session %d", i)
		}
	}
	return all
}

func TestSessionSlotsAreGivenToThoseWhoUseThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sessions := fetch.NewSessions()
		all := fill(t, sessions)
		late := &client{t: t, sessions: sessions}
		late.expect(late.step("a", "", nil), "fetch a, answer a")
		if late.id != 0 {
			t.Fatal("a session above the number of slots")
		}
		time.Sleep(idle + time.Millisecond)
		for i, c := range all {
			if i != 500 {
				c.expect(c.step("", "", nil), "fetch a, answer ")
			}
		}
		late.epoch = 0
		if late.step("a", "", nil); late.id == 0 {
			t.Error("no slot though a session is idle")
		}
		all[500].expect(all[500].step("", "", nil), fetch.ErrSessionNotFound.Error())
		all[0].expect(all[0].step("", "", nil), "fetch a, answer ")
	})
}

func TestLargeSessionTakesTheSlotOfASmallOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sessions := fetch.NewSessions()
		all := fill(t, sessions)
		large := &client{t: t, sessions: sessions}
		if large.step("a b", "", nil); large.id != 0 {
			t.Error("sessions that are new gave way")
		}
		time.Sleep(idle + time.Millisecond)
		for i, c := range all {
			add := "b c"
			if i == 7 {
				add = ""
			}
			c.step(add, "", nil)
		}
		large.epoch = 0
		if large.step("a", "", nil); large.id != 0 {
			t.Error("a session gave way to one of the same size")
		}
		large.epoch = 0
		if large.step("a b", "", nil); large.id == 0 {
			t.Error("no session gave way to a larger one")
		}
		all[7].expect(all[7].step("", "", nil), fetch.ErrSessionNotFound.Error())
		all[8].expect(all[8].step("", "", nil), "fetch a b c, answer ")
	})
}

func TestSessionEpochCountsOnFromOne(t *testing.T) {
	t.Parallel()
	for epoch, want := range map[int32]int32{1: 2, 2: 3, math.MaxInt32: 1} {
		if got := fetch.NextEpoch(epoch); got != want {
			t.Errorf("after %d: %d, want %d", epoch, got, want)
		}
	}
}

// Clients that name more partitions than there is memory for go on without sessions.
func TestSessionsAreBoundedTogether(t *testing.T) {
	const most, each = 500_000, 100_000
	sessions := fetch.NewSessions()
	begin := func(id, epoch int32, first, n int) (*fetch.SessionFetch, error) {
		req := fetch.SessionRequest{ID: id, Epoch: epoch}
		for p := range n {
			req.Partitions = append(req.Partitions, fetch.SessionPartition{PartitionRef: fetch.PartitionRef{Name: "t", Partition: int32(first + p)}})
		}
		return sessions.Begin(req)
	}
	var ids []int32
	for range most / each {
		f, err := begin(0, 0, 0, each)
		if err != nil || f.ID == 0 {
			t.Fatalf("session %d, %v", f.ID, err)
		}
		ids = append(ids, f.ID)
	}
	if f, err := begin(0, 0, 0, 1); err != nil || f.ID != 0 || len(f.Partitions) != 1 {
		t.Errorf("one partition too many: session %d of %d partitions, %v", f.ID, len(f.Partitions), err)
	}
	if _, err := begin(ids[0], 1, each, 1); !errors.Is(err, fetch.ErrSessionNotFound) {
		t.Errorf("a session that grows too large: %v", err)
	}
	if f, err := begin(0, 0, 0, each); err != nil || f.ID == 0 {
		t.Errorf("in the place of that one: session %d, %v", f.ID, err)
	}
	if f, err := begin(0, 0, 0, most+1); err != nil || f.ID != 0 || len(f.Partitions) != most+1 {
		t.Errorf("a session larger than all: session %d of %d partitions, %v", f.ID, len(f.Partitions), err)
	}
}

func TestSessionKeepsNoNameThatIsNoTopics(t *testing.T) {
	long := strings.Repeat("x", 250)
	c := &client{t: t, sessions: fetch.NewSessions()}
	if c.step(long, "", nil); c.id != 0 {
		t.Error("a session with a name of 250 bytes")
	}
	c.epoch = 0
	if c.step("a", "", nil); c.id == 0 {
		t.Fatal("no session")
	}
	c.expect(c.step(long, "", nil), fetch.ErrSessionNotFound.Error())
}
