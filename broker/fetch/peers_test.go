package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// network connects readers to the feeds of others.
type network struct {
	delay atomic.Int64 // ns, each way

	mu      sync.Mutex
	holders map[lease.Key]string
	readers map[string]*fetch.Reader
	cut     map[string]bool
	streams map[string]context.CancelCauseFunc
	open    int
	begun   int
}

func newNetwork() *network {
	return &network{
		holders: map[lease.Key]string{}, readers: map[string]*fetch.Reader{},
		cut: map[string]bool{}, streams: map[string]context.CancelCauseFunc{},
	}
}

func (n *network) Holder(k lease.Key) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	id, ok := n.holders[k]
	return id, ok && !n.cut[id]
}

func (n *network) travel() { time.Sleep(time.Duration(n.delay.Load())) }

var errCut = errors.New("cut")

// part cuts an agent off, or has it back.
func (n *network) part(id string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[id] = cut
	if stop := n.streams[id]; cut && stop != nil {
		stop(errCut)
	}
}

func (n *network) streamsOpen() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open
}

func (n *network) Follow(ctx context.Context, id string, f fetch.Follower) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	n.mu.Lock()
	feed := n.readers[id].Feed()
	n.streams[id] = stop
	n.open++
	n.begun++
	n.mu.Unlock()
	defer feed.Close()
	var up sync.WaitGroup
	defer up.Wait()
	up.Go(func() {
		for {
			add, drop, changed := f.Wanted()
			n.travel()
			feed.Want(add, drop)
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.open--
	}()
	for {
		wait, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		news, err := feed.Next(wait)
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			stop(err)
			return err
		}
		n.travel()
		f.Grown(news)
	}
}

// pair is an agent that leads partitions, and one that follows it.
type pair struct {
	*network
	leader, other *world
}

func newPair(tb testing.TB, cfg fetch.Config) *pair {
	p := &pair{network: newNetwork(), leader: newWorld(tb, cfg)}
	p.readers["leader"] = p.leader.reader
	cfg.Peers = p.network
	p.other = on(p.leader.index, p.leader.objects, cfg)
	p.other.tb = tb
	tb.Cleanup(p.other.run())
	return p
}

// lead makes the leader lead partitions, as the other one knows.
func (p *pair) lead(keys ...lease.Key) {
	for _, k := range keys {
		p.leader.lead(k)
		p.mu.Lock()
		p.holders[k] = "leader"
		p.mu.Unlock()
	}
}

// followed starts a long poll of the other agent at the log's end, and returns when
// the leader's feed keeps it current.
func (p *pair) followed(t *testing.T, k lease.Key) *poll {
	t.Helper()
	long := p.other.poll(t.Context(), patient, at(k, p.leader.index.part(k).marks.High))
	time.Sleep(2 * time.Second)
	synctest.Wait()
	if long.done() || p.other.metric("fetch_followed_partitions") == 0 {
		t.Fatalf("the long poll is done: %v, %v partitions are followed", long.done(), p.other.metric("fetch_followed_partitions"))
	}
	return long
}

func inPair(t *testing.T, test func(t *testing.T, p *pair)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newPair(t, fetch.Config{})) })
}

func TestCommitElsewhereWakesALongPollByTheFeed(t *testing.T) {
	inPair(t, func(t *testing.T, p *pair) {
		const delay = 3 * time.Millisecond
		p.delay.Store(int64(delay))
		p.lead(key(0))
		p.leader.here(of(key(0), "a"))
		long := p.followed(t, key(0))
		statements := p.leader.index.statements()
		for next := int64(1); next < 20; next++ {
			began := time.Now()
			p.leader.here(of(key(0), "b"))
			<-long.ended
			if took := time.Since(began); took != delay {
				t.Fatalf("record %d took %v", next, took)
			}
			if end := p.leader.index.check(t, key(0), next, long.results[0].Records); end != next+1 {
				t.Fatalf("read to %d, not to %d", end, next+1)
			}
			time.Sleep(50 * time.Millisecond)
			long = p.other.poll(t.Context(), patient, at(key(0), next+1))
		}
		if n := p.leader.index.statements() - statements; n != 0 {
			t.Errorf("%d statements were needed", n)
		}
	})
}

func TestFollowedPartitionsAtRestAskNothing(t *testing.T) {
	inPair(t, func(t *testing.T, p *pair) {
		p.lead(key(0), key(1))
		p.leader.here(of(key(0), "a")) // and of partition 1 the leader itself knows nothing
		p.followed(t, key(0))
		p.followed(t, key(1))
		statements := p.leader.index.statements()
		for range 10 {
			res := p.other.reader.Fetch(t.Context(), []fetch.Request{at(key(0), 1), at(key(1), 0)}, patient)
			if res[0].Err != nil || res[1].Err != nil {
				t.Fatalf("%+v", res)
			}
		}
		if n := p.leader.index.statements() - statements; n != 0 {
			t.Errorf("%d statements in %v", n, 10*maxWait)
		}
	})
}

func TestPartitionThatNobodyFetchesIsFollowedNoMore(t *testing.T) {
	inPair(t, func(t *testing.T, p *pair) {
		p.lead(key(0), key(1))
		p.leader.here(of(key(0), "a"), of(key(1), "a"))
		<-p.followed(t, key(0)).ended
		p.followed(t, key(1))
		time.Sleep(5 * time.Second)
		if n := p.other.metric("fetch_followed_partitions"); n != 2 || p.streamsOpen() != 1 {
			t.Errorf("%v partitions are followed over %d streams", n, p.streamsOpen())
		}
		time.Sleep(15 * time.Second)
		if n := p.other.metric("fetch_followed_partitions"); n != 0 || p.streamsOpen() != 0 {
			t.Errorf("at rest %v partitions are followed over %d streams", n, p.streamsOpen())
		}
		p.followed(t, key(0))
	})
}

func TestDatabaseServesWhenTheFeedIsCut(t *testing.T) {
	inPair(t, func(t *testing.T, p *pair) {
		p.lead(key(0))
		p.leader.here(of(key(0), "a"))
		long := p.followed(t, key(0))
		p.part("leader", true)
		began := time.Now()
		p.leader.here(of(key(0), "b"))
		<-long.ended
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("answered after %v", took)
		}
		p.part("leader", false)
		long = p.followed(t, key(0))
		statements := p.leader.index.statements()
		p.leader.here(of(key(0), "c"))
		<-long.ended
		if n := p.leader.index.statements() - statements; n != 0 {
			t.Errorf("%d statements after the feed was back", n)
		}
	})
}

// A leader that stands still says nothing, and is believed for a moment only.
func TestSilentFeedIsNotBelieved(t *testing.T) {
	inPair(t, func(t *testing.T, p *pair) {
		p.lead(key(0))
		p.leader.here(of(key(0), "a"))
		long := p.followed(t, key(0))
		p.delay.Store(int64(time.Hour))
		time.Sleep(200 * time.Millisecond)
		p.leader.elsewhere(of(key(0), "b"))
		began := time.Now()
		<-long.ended
		if took := time.Since(began); took > 700*time.Millisecond {
			t.Errorf("answered after %v", took)
		}
		time.Sleep(500 * time.Millisecond)
		statements := p.leader.index.statements()
		if res := p.other.fetch(key(0), 2, ample); res.Err != nil || p.leader.index.statements() == statements {
			t.Errorf("a fetch at the end was answered without asking: %+v", res)
		}
		p.delay.Store(0)
		p.part("leader", true) // so that the stream, which sleeps, is known to be over
		time.Sleep(2 * time.Hour)
	})
}

func TestFollowersLookForTheNextLeader(t *testing.T) {
	inPair(t, func(t *testing.T, p *pair) {
		p.lead(key(0))
		p.leader.here(of(key(0), "a"))
		long := p.followed(t, key(0))
		next := on(p.leader.index, p.leader.objects, fetch.Config{})
		next.tb = t
		t.Cleanup(next.run())
		p.mu.Lock()
		p.readers["next"] = next.reader
		p.mu.Unlock()
		p.leader.lose(key(0))
		next.leases.mu.Lock()
		next.leases.led[key(0)] = 2
		next.leases.mu.Unlock()
		time.Sleep(300 * time.Millisecond)
		next.here(of(key(0), "b"))
		time.Sleep(200 * time.Millisecond) // told not to believe the old leader, it polls
		synctest.Wait()
		if !long.done() {
			t.Fatal("not answered with what the next leader has committed")
		}
		p.mu.Lock()
		p.holders[key(0)] = "next"
		p.mu.Unlock()
		long = p.followed(t, key(0))
		statements := p.leader.index.statements()
		next.here(of(key(0), "c"))
		synctest.Wait()
		if n := p.leader.index.statements() - statements; !long.done() || n != 0 {
			t.Errorf("answered: %v, with %d statements", long.done(), n)
		}
	})
}

// An agent that has not noticed that it leads no more is not believed by those who
// have.
func TestFeedOfAnOldLeaderIsNotBelieved(t *testing.T) {
	inPair(t, func(t *testing.T, p *pair) {
		p.lead(key(0))
		p.leader.here(of(key(0), "a"))
		p.followed(t, key(0))
		p.leader.index.nextEpoch(key(0))
		p.leader.elsewhere(of(key(0), "b"))
		if res := p.other.fetch(key(0), 2, ample); res.Err != nil || res.Watermarks.LeaderEpoch != 2 {
			t.Fatalf("got %+v", res)
		}
		p.leader.reader.LogStart(key(0), 1) // is told, in the old leader epoch
		synctest.Wait()
		if res := p.other.fetch(key(0), 2, ample); res.Err != nil || res.Watermarks.LeaderEpoch != 2 || res.Watermarks.LogStart != 0 {
			t.Errorf("got %+v", res)
		}
		p.leader.elsewhere(of(key(0), "c"))
		time.Sleep(401 * time.Millisecond)
		if res := p.other.fetch(key(0), 2, ample); res.Err != nil || p.leader.index.check(t, key(0), 2, res.Records) != 3 {
			t.Errorf("the old leader was believed: %+v", res)
		}
	})
}

// The bytes of inline batches are not sent: the index is asked for them, at once,
// but no more often than a few times in a poll interval.
func TestInlineCommitsElsewhereArePolledAtOnce(t *testing.T) {
	inPair(t, func(t *testing.T, p *pair) {
		p.lead(key(0))
		p.leader.here(of(key(0), "a"))
		long := p.followed(t, key(0))
		began := time.Now()
		p.leader.inlineHere(of(key(0), "b"))
		<-long.ended
		if took := time.Since(began); took != 0 || p.leader.index.check(t, key(0), 1, long.results[0].Records) != 2 {
			t.Errorf("answered after %v", took)
		}
		time.Sleep(time.Second)
		p.leader.inlineHere(of(key(0), "c")) // while nobody waits
		synctest.Wait()
		if long = p.other.poll(t.Context(), patient, at(key(0), 2)); !long.done() {
			t.Error("who comes behind an inline commit has to wait")
		}
		p.followed(t, key(0))
		statements := p.leader.index.statements()
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() {
				for next := int64(3); next < 103; {
					next = p.leader.index.check(t, key(0), next, p.other.fetch(key(0), next, patient).Records)
				}
			})
		}
		for range 100 {
			time.Sleep(10 * time.Millisecond)
			p.leader.inlineHere(of(key(0), "d"))
		}
		group.Wait()
		if n := p.leader.index.statements() - statements; n > 40 { // of 500 if each asked for itself
			t.Errorf("%d statements in a second of inline commits", n)
		}
	})
}

// While the database is away, records of others still come.
func TestFeedNeedsNoDatabase(t *testing.T) {
	inPair(t, func(t *testing.T, p *pair) {
		p.lead(key(0))
		p.leader.here(of(key(0), "a"))
		long := p.followed(t, key(0))
		p.leader.index.fail(metadata.ErrUnavailable)
		time.Sleep(time.Second)
		p.leader.here(of(key(0), "b"))
		synctest.Wait()
		if !long.done() || long.results[0].Err != nil || p.leader.index.check(t, key(0), 1, long.results[0].Records) != 2 {
			t.Fatalf("answered: %v: %+v", long.done(), long.results)
		}
		if res := p.other.fetch(key(0), 9, ample); !errors.Is(res.Err, metadata.ErrUnavailable) {
			t.Errorf("an offset beyond the end: %v", res.Err)
		}
	})
}

func TestDeletedRecordsAreTold(t *testing.T) {
	inPair(t, func(t *testing.T, p *pair) {
		p.lead(key(0))
		p.leader.here(of(key(0), "a"), of(key(0), "b"))
		p.followed(t, key(0))
		p.leader.index.deleteRecords(key(0), 1)
		p.leader.reader.LogStart(key(0), 1)
		synctest.Wait()
		if res := p.other.fetch(key(0), 0, ample); !errors.Is(res.Err, fetch.ErrOffsetOutOfRange) {
			t.Errorf("a deleted record: %+v", res)
		}
	})
}

func TestForgottenTopicIsNotFollowed(t *testing.T) {
	inPair(t, func(t *testing.T, p *pair) {
		p.lead(key(0))
		p.leader.here(of(key(0), "a"))
		long := p.followed(t, key(0))
		p.leader.index.mu.Lock()
		delete(p.leader.index.parts, key(0))
		p.leader.index.mu.Unlock()
		p.leader.reader.Forget(topicID)
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if !long.done() || !errors.Is(long.results[0].Err, metadata.ErrUnknownTopic) {
			t.Errorf("answered: %v: %+v", long.done(), long.results)
		}
	})
}

// drain returns what a feed has to tell now.
func drain(t *testing.T, f *fetch.Feed) []metadata.Growth {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	news, err := f.Next(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return news
}

// summary renders news: leader epoch, offsets from log start to high, and extents.
func summary(news []metadata.Growth) (s string) {
	for _, g := range news {
		s += fmt.Sprintf("p%d e%d [%d,%d)", g.Partition, g.Watermarks.LeaderEpoch, g.Watermarks.LogStart, g.Watermarks.High)
		for _, e := range g.Extents {
			s += fmt.Sprintf(" %d-%d", e.BaseOffset, e.EndOffset)
		}
		s += "; "
	}
	return s
}

func TestFeedTellsWhatItsLeaderCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fetch.Config{})
		f := w.reader.Feed()
		defer f.Close()
		want := func(what, want string) {
			t.Helper()
			if got := summary(drain(t, f)); got != want {
				t.Errorf("%s:\n got %q\nwant %q", what, got, want)
			}
		}
		f.Want([]lease.Key{key(0)}, nil)
		want("not led", "p0 e-1 [-1,-1); ")
		w.lead(key(0))
		f.Want([]lease.Key{key(0)}, nil)
		want("nothing known", "p0 e1 [-1,-1); ")
		w.here(of(key(0), "a", "b"))
		w.here(of(key(0), "c"))
		want("two commits", "p0 e1 [0,3) 0-2 2-3; ")
		w.here(of(key(1), "a"))
		want("another partition", "")
		f.Want([]lease.Key{key(0)}, nil)
		want("asked again", "p0 e1 [0,3) 0-2 2-3; ")
		w.inlineHere(of(key(0), "d"))
		want("inline", "p0 e1 [0,4); ")
		w.here(of(key(0), "e"))
		w.inlineHere(of(key(0), "f"))
		w.here(of(key(0), "g"))
		want("an inline commit between others", "p0 e1 [0,7); ")
		f.Want([]lease.Key{key(0)}, nil)
		want("what follows the inline ones", "p0 e1 [0,7) 6-7; ")
		for range 65 {
			w.here(of(key(0), "h"))
		}
		want("too many", "p0 e1 [0,72); ")
		w.elsewhere(of(key(0), "i"))
		w.want(key(0), 73) // the index tells
		want("read from the index", "p0 e1 [0,73); ")
		w.lose(key(0))
		time.Sleep(250 * time.Millisecond)
		want("lost", "p0 e-1 [-1,-1); ")
		w.lead(key(0))
		f.Want([]lease.Key{key(0)}, nil)
		want("led again, and nothing known", "p0 e3 [-1,-1); ")
		w.here(of(key(0), "j"))
		want("led again", "p0 e3 [0,74) 73-74; ")
		f.Want(nil, []lease.Key{key(0), key(1)})
		w.here(of(key(0), "k"))
		want("dropped", "")
		f.Close()
		if _, err := f.Next(t.Context()); err == nil {
			t.Error("a closed feed tells more")
		}
	})
}
