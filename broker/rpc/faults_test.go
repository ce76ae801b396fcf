package rpc

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// TestCutsAreClassed breaks the connection before, in and after a commit: only before
// it is the end definite.
func TestCutsAreClassed(t *testing.T) {
	v := newView()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy := testdb.NewProxy(t, l.Addr().String())
	began, finish := make(chan struct{}, 10), make(chan struct{})
	start(t, options{view: v, id: "holder", listener: l, address: proxy.Addr(), handlers: Handlers{
		Commit: func(ctx context.Context, from metadata.Agent, c *metadata.Commit) ([][]metadata.CommitResult, error) {
			began <- struct{}{}
			<-finish
			return committed(ctx, from, c)
		},
	}})
	caller := start(t, options{view: v, id: "caller"})
	commit := func() error { _, err := caller.Commit(t.Context(), commitOf("holder", 1)); return err }
	holder, err := caller.peer("holder")
	if err != nil {
		t.Fatal(err)
	}
	// recovered waits until the holder can be reached and nothing is under way that
	// could say otherwise.
	recovered := func() {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; caller.probe(t.Context(), holder) {
			caller.mu.Lock()
			settled := !holder.down && !holder.doubted && !holder.probing
			caller.mu.Unlock()
			if settled {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("the holder does not become reachable")
			}
		}
	}

	proxy.Refuse(true)
	if err := commit(); !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("without a connection: %v", err)
	}
	if caller.Reachable("holder") {
		t.Error("who refuses connections can be reached")
	}
	proxy.Refuse(false)
	recovered()

	cut := proxy.CutNextRequest(func(chunk []byte) bool { return len(chunk) > 60 }) // no ping
	if err := commit(); !errors.Is(err, metadata.ErrUnknownOutcome) || errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("with the request cut off: %v", err)
	}
	await(t, "the cut", cut)
	if len(began) > 0 {
		t.Error("a request that was cut off has arrived")
	}
	recovered()

	done := make(chan error, 1)
	go func() { done <- commit() }()
	await(t, "a commit", began)
	proxy.CloseAll()
	if err := await(t, "the end of the call", done); !errors.Is(err, metadata.ErrUnknownOutcome) || errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("with the answer cut off: %v", err)
	}
	close(finish)
	recovered()
	if err := commit(); err != nil {
		t.Errorf("after it all: %v", err)
	}
	if n := len(began); n != 1 {
		t.Errorf("the last commit was made %d times", n)
	}
}

// TestPeerThatRefusesIsProbedNowAndThen has a peer whose machine answers at once that
// nobody is there, as that of a dead agent does.
func TestPeerThatRefusesIsProbedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, network := newView(), newMemory()
		start(t, options{view: v, id: "holder", listener: network, handlers: Handlers{Commit: committed}})
		var dials atomic.Int64
		caller := start(t, options{view: v, id: "caller", listener: newMemory(), cfg: Config{
			Dial: func(context.Context, string) (net.Conn, error) {
				dials.Add(1)
				return nil, errors.New("refused")
			},
		}})
		if _, err := caller.Commit(t.Context(), commitOf("holder", 1)); !errors.Is(err, metadata.ErrUnavailable) {
			t.Errorf("commit at a peer that refuses connections: %v", err)
		}
		const intervals = 20
		time.Sleep(intervals * probeInterval) // virtual
		if n := dials.Load(); n < intervals || n > intervals+2 {
			t.Errorf("dialed %d times in %d intervals", n, intervals)
		}
	})
}

// TestFrozenPeerIsNoticed stops a peer under calls and a stream, in virtual time.
func TestFrozenPeerIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, network := newView(), newMemory()
		feed := newChannelFeed()
		start(t, options{view: v, id: "holder", listener: network, handlers: Handlers{
			Commit: committed, Feed: func(metadata.Agent) Feed { return feed },
		}})
		elsewhere := newMemory()
		caller := start(t, options{view: v, id: "caller", listener: elsewhere, cfg: Config{Dial: network.dial}})
		if _, err := caller.Commit(t.Context(), commitOf("holder", 1)); err != nil {
			t.Fatal(err)
		}
		f := newChannelFollower(lease.Key{})
		var last time.Time
		ended := make(chan error, 1)
		go func() { ended <- caller.Follow(t.Context(), "holder", f) }()
		listening := make(chan struct{})
		go func() {
			defer close(listening)
			for range f.grown {
				if now := time.Now(); !last.IsZero() && now.Sub(last) > LifeInterval {
					t.Errorf("no word for %s", now.Sub(last))
				}
				last = time.Now()
			}
		}()
		time.Sleep(10 * time.Second) // virtual
		network.freeze()
		frozen := time.Now()
		_, err := caller.Commit(t.Context(), commitOf("holder", 1))
		if !errors.Is(err, metadata.ErrUnknownOutcome) {
			t.Errorf("commit at a frozen peer: %v", err)
		}
		if err := <-ended; err == nil {
			t.Error("a stream of a frozen peer has ended well")
		}
		t.Logf("noticed after %s", time.Since(frozen))
		if took := time.Since(frozen); took > 2500*time.Millisecond {
			t.Errorf("a frozen peer was noticed after %s", took)
		}
		time.Sleep(pingTimeout) // virtual
		if caller.Reachable("holder") {
			t.Error("a frozen peer can be reached")
		}
		if _, err := caller.Commit(t.Context(), commitOf("holder", 1)); !errors.Is(err, metadata.ErrUnavailable) {
			t.Errorf("commit at a peer that can't be reached: %v", err)
		}
		network.thaw()
		time.Sleep(pingTimeout + 2*probeInterval) // virtual
		if !caller.Reachable("holder") {
			t.Error("a peer that lives again can't be reached")
		}
		if _, err := caller.Commit(t.Context(), commitOf("holder", 1)); err != nil {
			t.Error(err)
		}
		close(f.grown)
		<-listening
		<-feed.closed
	})
}

// TestSlowFollowerHoldsUpItsSender has a follower that takes nothing: the sender waits,
// asks for no more news, and gives up.
func TestSlowFollowerHoldsUpItsSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, network := newView(), newMemory()
		feed := &endlessFeed{closed: make(chan struct{})}
		start(t, options{view: v, id: "holder", listener: network, handlers: Handlers{Feed: func(metadata.Agent) Feed { return feed }}})
		caller := start(t, options{view: v, id: "caller", listener: newMemory(), cfg: Config{Dial: network.dial}})
		f := newChannelFollower(lease.Key{})
		ended := make(chan error, 1)
		go func() { ended <- caller.Follow(t.Context(), "holder", f) }()
		<-f.grown
		began := time.Now()
		<-feed.closed
		if took := time.Since(began); took > 2*writeTimeout {
			t.Errorf("the sender has waited for %s", took)
		}
		if most := 16 << 20; feed.bytes > most {
			t.Errorf("the sender took %d bytes of news, at most %d are planned", feed.bytes, most)
		}
		go func() {
			for range f.grown {
			}
		}()
		if err := <-ended; err == nil {
			t.Error("the stream has ended well")
		}
		close(f.grown)
	})
}

// endlessFeed has always news.
type endlessFeed struct {
	closed chan struct{}
	bytes  int
}

func (f *endlessFeed) Want(_, _ []lease.Key) {}
func (f *endlessFeed) Close()                { close(f.closed) }
func (f *endlessFeed) Next(context.Context) ([]metadata.Growth, error) {
	news := make([]metadata.Growth, 20)
	for i := range news {
		news[i].Extents = make([]metadata.Extent, 1000)
		f.bytes += 1000 * leastExtent
	}
	return news, nil
}
