package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

func TestCommitAtAnother(t *testing.T) {
	v := newView()
	sent := commitOf("holder", 3)
	holder := start(t, options{view: v, id: "holder", zone: "b", handlers: Handlers{
		Commit: func(ctx context.Context, from metadata.Agent, c *metadata.Commit) ([][]metadata.CommitResult, error) {
			if from.ID != "ünter/way" || from.Zone != "a" {
				t.Errorf("the call is from %+v", from)
			}
			if diff := cmp.Diff(sent, c); diff != "" {
				t.Errorf("commit (-sent +received):\n%s", diff)
			}
			if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > time.Minute {
				t.Errorf("the handler has time until %s, %t", deadline, ok)
			}
			return committed(ctx, from, c)
		},
	}})
	caller := start(t, options{view: v, id: "ünter/way", zone: "a"})
	results, err := caller.Commit(t.Context(), sent)
	want, _ := committed(t.Context(), caller.self, sent)
	if diff := cmp.Diff(want, results); err != nil || diff != "" {
		t.Errorf("%v, results (-want +got):\n%s", err, diff)
	}
	if !caller.Reachable("holder") {
		t.Error("who answers can't be reached")
	}
	for _, direction := range []string{"in", "out"} {
		near := caller.metric(t, "streamhouse_peer_connection_bytes_total", "direction", direction, "zone", "b")
		payload := caller.metric(t, "streamhouse_peer_bytes_total", "direction", direction, "kind", "commit", "zone", "b")
		if payload < 5 || near < payload {
			t.Errorf("%s: %g bytes on the connection, %g of messages", direction, near, payload)
		}
	}
	caller.stop() // so that all is counted
	holder.stop()
	if in := holder.metric(t, "streamhouse_peer_connection_bytes_total", "direction", "in", "zone", "a"); in < 100 {
		t.Errorf("the holder counts %g bytes from the caller's zone", in)
	}
	if in := holder.metric(t, "streamhouse_peer_connection_bytes_total", "zone", "unknown"); in != 0 {
		t.Errorf("the holder does not know of %g bytes from where they are", in)
	}
}

// TestCommitOutcomes tells definite from unknown ends by what the handler says.
func TestCommitOutcomes(t *testing.T) {
	for name, test := range map[string]struct {
		err      error
		definite bool
	}{
		"unavailable": {metadata.ErrUnavailable, true},
		"unknown":     {errors.New("the connection to the database broke"), false},
	} {
		t.Run(name, func(t *testing.T) {
			v := newView()
			start(t, options{view: v, id: "holder", handlers: Handlers{
				Commit: func(context.Context, metadata.Agent, *metadata.Commit) ([][]metadata.CommitResult, error) {
					return nil, test.err
				},
			}})
			caller := start(t, options{view: v, id: "caller"})
			_, err := caller.Commit(t.Context(), commitOf("holder", 1))
			if err == nil || errors.Is(err, metadata.ErrUnavailable) != test.definite {
				t.Errorf("error %v, want a definite one: %t", err, test.definite)
			}
			if errors.Is(err, metadata.ErrUnknownOutcome) == test.definite {
				t.Errorf("error %v, want one of an unknown outcome: %t", err, !test.definite)
			}
			if !caller.Reachable("holder") {
				t.Error("who answers can't be reached")
			}
		})
	}
}

// TestRefusals has calls that are refused before anything is done.
func TestRefusals(t *testing.T) {
	v := newView()
	handled := make(chan struct{}, 100)
	start(t, options{view: v, id: "holder", handlers: Handlers{
		Commit: func(ctx context.Context, from metadata.Agent, c *metadata.Commit) ([][]metadata.CommitResult, error) {
			handled <- struct{}{}
			return committed(ctx, from, c)
		},
	}})
	caller := start(t, options{view: v, id: "caller"})
	holder, err := caller.peer("holder")
	if err != nil {
		t.Fatal(err)
	}
	commit := func(r request) error {
		r.kind = kindCommit
		resp, err := caller.send(t.Context(), holder, r)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	body := func(c *metadata.Commit) request {
		b, err := appendCommit(nil, c)
		if err != nil {
			t.Fatal(err)
		}
		return request{method: http.MethodPost, path: commitPath, body: io.NopCloser(bytes.NewReader(b)), length: int64(len(b))}
	}
	large := bytes.NewReader(make([]byte, maxCommitBytes+1))
	for reason, r := range map[string]request{
		refusedPath:      {method: http.MethodGet, path: "/v2/ping"},
		refusedMistaken:  body(commitOf("another", 1)),
		refusedMalformed: {method: http.MethodPost, path: commitPath, body: io.NopCloser(bytes.NewReader([]byte("x"))), length: 1},
		refusedTooLarge:  {method: http.MethodPost, path: commitPath, body: io.NopCloser(large), length: large.Size()},
	} {
		var refused refusal
		err := commit(r)
		if !errors.As(err, &refused) || string(refused) != reason || !errors.Is(err, metadata.ErrUnavailable) {
			t.Errorf("%s: error %v", reason, err)
		}
	}
	if _, err := caller.Commit(t.Context(), commitOf("nobody", 1)); !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("commit at nobody: %v", err)
	}
	if _, err := caller.Commit(t.Context(), commitOf("holder", MaxCommitBatches+1)); !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("commit of too many batches: %v", err)
	}
	for name, at := range map[string][3]int64{"empty": {9, 3, 3}, "beyond": {9, 3, 10}, "large": {99 << 20, 0, MaxBlockBytes + 1}, "negative": {9, -1, 3}} {
		if _, err := caller.Block(t.Context(), "holder", segment.NewID(), at[0], at[1], at[2]); !errors.Is(err, metadata.ErrUnavailable) {
			t.Errorf("a block that is %s: %v", name, err)
		}
	}
	if len(handled) > 0 {
		t.Error("a call that was refused was handled")
	}
	if !caller.Reachable("holder") {
		t.Error("who refuses can't be reached")
	}
}

// TestCallerIsLookedUp has a caller that the view does not have yet, and one that it
// never has.
func TestCallerIsLookedUp(t *testing.T) {
	v := newView()
	start(t, options{view: v, id: "holder", handlers: Handlers{Commit: committed}})
	caller := start(t, options{view: v, id: "caller"})
	other := caller.self
	other.Session = uuid.New()
	v.put(other)
	if _, err := caller.Commit(t.Context(), commitOf("holder", 1)); !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("a life that is not in the view commits: %v", err)
	}
	if v.asked != 1 {
		t.Errorf("the view was refreshed %d times, want once", v.asked)
	}
	v.hidden["caller"] = caller.self
	if _, err := caller.Commit(t.Context(), commitOf("holder", 1)); err != nil {
		t.Errorf("a caller that a refresh finds: %v", err)
	}
}

// TestAnotherLife calls an agent that has started anew at the same address.
func TestAnotherLife(t *testing.T) {
	v := newView()
	holder := start(t, options{view: v, id: "holder", handlers: Handlers{Commit: committed}})
	caller := start(t, options{view: v, id: "caller"})
	before := holder.self
	before.Session = uuid.New()
	v.put(before)
	var refused refusal
	if _, err := caller.Commit(t.Context(), commitOf("holder", 1)); !errors.As(err, &refused) || refused != refusedMistaken {
		t.Errorf("commit at a former life: %v", err)
	}
	v.put(holder.self)
	if _, err := caller.Commit(t.Context(), commitOf("holder", 1)); err != nil {
		t.Errorf("commit at the life of now: %v", err)
	}
}

func TestCallsOfOnePeerAreBounded(t *testing.T) {
	v := newView()
	begun, end := make(chan struct{}), make(chan struct{})
	start(t, options{view: v, id: "holder", handlers: Handlers{
		Commit: func(ctx context.Context, from metadata.Agent, c *metadata.Commit) ([][]metadata.CommitResult, error) {
			begun <- struct{}{}
			<-end
			return committed(ctx, from, c)
		},
	}})
	caller := start(t, options{view: v, id: "caller"})
	done := make(chan error, maxCallsOfPeer)
	for range maxCallsOfPeer {
		go func() { _, err := caller.Commit(t.Context(), commitOf("holder", 1)); done <- err }()
		await(t, "a call", begun)
	}
	var refused refusal
	if _, err := caller.Commit(t.Context(), commitOf("holder", 1)); !errors.As(err, &refused) || refused != refusedBusy {
		t.Errorf("one call too many: %v", err)
	}
	close(end)
	for range maxCallsOfPeer {
		if err := await(t, "an answer", done); err != nil {
			t.Error(err)
		}
	}
	go func() { <-begun }()
	if _, err := caller.Commit(t.Context(), commitOf("holder", 1)); err != nil {
		t.Errorf("a call after the others: %v", err)
	}
}

func TestBlock(t *testing.T) {
	v := newView()
	object, content := segment.NewID(), bytes.Repeat([]byte("0123456789"), 100_000)
	start(t, options{view: v, id: "owner", handlers: Handlers{
		Block: func(_ context.Context, id segment.ID, size, from, to int64) ([]byte, error) {
			if id != object || size != int64(len(content)) {
				return nil, errors.New("no such object")
			}
			if from == 1 { // as if it had no more
				return content[:1], nil
			}
			return content[from:to], nil
		},
	}})
	reader := start(t, options{view: v, id: "reader"})
	for _, at := range [][2]int64{{0, 1}, {5, 70_000}, {0, int64(len(content))}} {
		b, err := reader.Block(t.Context(), "owner", object, int64(len(content)), at[0], at[1])
		if err != nil || !bytes.Equal(b, content[at[0]:at[1]]) {
			t.Errorf("bytes %v: %d bytes, %v", at, len(b), err)
		}
	}
	if b, err := reader.Block(t.Context(), "owner", segment.NewID(), 10, 0, 5); err == nil {
		t.Errorf("%d bytes of an object that is not there", len(b))
	}
	if b, err := reader.Block(t.Context(), "owner", object, int64(len(content)), 1, 9); err == nil {
		t.Errorf("%d bytes where the owner has fewer", len(b))
	}
}

func TestFollow(t *testing.T) {
	v := newView()
	feed := newChannelFeed()
	start(t, options{view: v, id: "holder", handlers: Handlers{Feed: func(from metadata.Agent) Feed {
		if from.ID != "follower" {
			t.Errorf("the feed is for %q", from.ID)
		}
		return feed
	}}})
	caller := start(t, options{view: v, id: "follower"})
	a, b, c := lease.Key{Partition: 1}, lease.Key{Partition: 2}, lease.Key{TopicID: uuid.New(), Partition: 1}
	f := newChannelFollower(b, a)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, maxCallsOfPeer)
	go func() { done <- caller.Follow(ctx, "holder", f) }()
	if diff := cmp.Diff([2][]lease.Key{{a, b}, nil}, await(t, "the first wish", feed.wants)); diff != "" {
		t.Errorf("first wish (-want +got):\n%s", diff)
	}
	news := []metadata.Growth{{
		Key: b, Watermarks: metadata.Watermarks{High: 10, LastStable: 10, LeaderEpoch: 1, LeaderID: "holder"},
		Extents: []metadata.Extent{{EndOffset: 10, LeaderEpoch: 1, AppendTime: -1, Object: uuid.New(), ObjectSize: 9, Length: 9}},
	}}
	heard := func() []metadata.Growth {
		for {
			if got := await(t, "growth", f.grown); got != nil { // no sign of life
				return got
			}
		}
	}
	feed.news <- news
	if diff := cmp.Diff(news, heard()); diff != "" {
		t.Errorf("growth (-want +got):\n%s", diff)
	}
	f.want([]lease.Key{c}, []lease.Key{b})
	// What comes in one wish goes in two messages: first what is dropped.
	var added, dropped []lease.Key
	for len(added) == 0 || len(dropped) == 0 {
		w := <-feed.wants
		added, dropped = append(added, w[0]...), append(dropped, w[1]...)
	}
	if diff := cmp.Diff([][]lease.Key{{c}, {b}}, [][]lease.Key{added, dropped}); diff != "" {
		t.Errorf("wishes (-want +got):\n%s", diff)
	}
	other := news[0]
	other.Key = c
	feed.news <- []metadata.Growth{news[0], other} // the first is not wanted any more
	if diff := cmp.Diff([]metadata.Growth{other}, heard()); diff != "" {
		t.Errorf("growth (-want +got):\n%s", diff)
	}
	cancel()
	go func() {
		for range f.grown { // which the stream may be about to tell
		}
	}()
	if err := await(t, "the end of the stream", done); err != nil {
		t.Error(err)
	}
	close(f.grown)
	await(t, "the end of the feed", feed.closed)
}

// TestServersEnd ends streams.
func TestServersEnd(t *testing.T) {
	v := newView()
	feed := newChannelFeed()
	holder := start(t, options{view: v, id: "holder", handlers: Handlers{Feed: func(metadata.Agent) Feed { return feed }}})
	caller := start(t, options{view: v, id: "follower"})
	f := newChannelFollower(lease.Key{})
	done := make(chan error, maxCallsOfPeer)
	go func() { done <- caller.Follow(t.Context(), "holder", f) }()
	await(t, "a wish", feed.wants)
	go func() {
		for range f.grown {
		}
	}()
	holder.stop()
	err := await(t, "the end of the stream", done)
	if err == nil {
		t.Error("the stream has ended well")
	}
	close(f.grown)
	await(t, "the end of the feed", feed.closed)
	if _, err := caller.Commit(t.Context(), commitOf("holder", 1)); err == nil {
		t.Error("one that is gone has committed")
	}
	caller.stop()
	if _, err := caller.Commit(t.Context(), commitOf("holder", 1)); !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("commit by one that has ended: %v", err)
	}
}
