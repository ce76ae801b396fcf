package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// courier is a network in which nothing moves but by the test's hand. Streams that
// are over still deliver.
type courier struct {
	mu      sync.Mutex
	agents  map[string]*world
	holders map[lease.Key]string
	streams []*stream
}

// stream is one connection, with what is on its way.
type stream struct {
	follower fetch.Follower
	feed     *fetch.Feed
	cut      context.CancelFunc
	over     atomic.Bool
	up       []wants
	down     [][]metadata.Growth
	added    map[lease.Key]int // how often, as the follower's side knows
	heard    map[lease.Key]int // the same, as the feed's side does
	periods  [][]int           // of each growth of down, to which adding it belongs
}

type wants struct{ add, drop []lease.Key }

func (c *courier) Holder(k lease.Key) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, ok := c.holders[k]
	return id, ok
}

func (c *courier) Follow(ctx context.Context, id string, f fetch.Follower) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &stream{follower: f, feed: c.agents[id].reader.Feed(), cut: cancel, added: map[lease.Key]int{}, heard: map[lease.Key]int{}}
	c.mu.Lock()
	c.streams = append(c.streams, s)
	c.mu.Unlock()
	<-ctx.Done()
	s.over.Store(true)
	return errCut
}

// live returns the streams that are not over, and all of them.
func (c *courier) live() (live, all []*stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		if !s.over.Load() {
			live = append(live, s)
		}
	}
	return live, slices.Clone(c.streams)
}

// ask takes what the follower wants.
func (s *stream) ask() {
	add, drop, _ := s.follower.Wanted()
	if len(add)+len(drop) > 0 {
		for _, k := range add {
			s.added[k]++
		}
		s.up = append(s.up, wants{add, drop})
	}
}

// want delivers the oldest of what the follower wants.
func (s *stream) want() {
	if len(s.up) > 0 {
		for _, k := range s.up[0].add {
			s.heard[k]++
		}
		s.feed.Want(s.up[0].add, s.up[0].drop)
		s.up = s.up[1:]
	}
}

// tell takes what the feed tells; nothing is a sign of life.
func (s *stream) tell() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	news, _ := s.feed.Next(ctx)
	periods := make([]int, len(news))
	for i := range news {
		periods[i] = s.heard[news[i].Key]
	}
	s.down, s.periods = append(s.down, news), append(s.periods, periods)
}

// grow delivers the oldest of what the feed told, but for what was told of a
// partition before it was added again.
func (s *stream) grow() {
	if len(s.down) == 0 {
		return
	}
	var news []metadata.Growth
	for i, g := range s.down[0] {
		if s.periods[0][i] == s.added[g.Key] {
			news = append(news, g)
		}
	}
	s.follower.Grown(news)
	s.down, s.periods = s.down[1:], s.periods[1:]
}

// deliver delivers all that is on its way.
func (s *stream) deliver() {
	for s.ask(); len(s.up) > 0; {
		s.want()
	}
	for s.tell(); len(s.down) > 0; {
		s.grow()
	}
}

// hostile is a cluster: two agents that lead by turns, and one that follows.
type hostile struct {
	*courier
	reader *world // the one that follows
	names  []string
	high   map[lease.Key]int64 // as the one that follows has told, as is
	epoch  map[lease.Key]int32
	polls  map[lease.Key]*longPoll
	keys   []lease.Key
	leads  map[lease.Key]string // whom the store has granted the lease
}

type longPoll struct {
	*poll
	offset int64
}

func newHostile(t *testing.T) (h *hostile, stop func()) {
	h = &hostile{
		courier: &courier{agents: map[string]*world{}, holders: map[lease.Key]string{}},
		names:   []string{"a", "b"}, keys: []lease.Key{key(0), key(1)},
		high: map[lease.Key]int64{}, epoch: map[lease.Key]int32{}, polls: map[lease.Key]*longPoll{}, leads: map[lease.Key]string{},
	}
	a := makeWorld(fetch.Config{})
	h.agents["a"], h.agents["b"] = a, on(a.index, a.objects, fetch.Config{})
	h.reader = on(a.index, a.objects, fetch.Config{Peers: h.courier})
	var stops []func()
	for _, w := range []*world{a, h.agents["b"], h.reader} {
		w.tb = t
		stops = append(stops, w.run())
	}
	for _, k := range h.keys {
		a.lead(k)
		h.holders[k], h.leads[k] = "a", "a"
	}
	return h, func() {
		for _, stop := range slices.Backward(stops) {
			stop()
		}
		_, all := h.live()
		for _, s := range all {
			s.feed.Close()
		}
		for _, p := range h.polls {
			<-p.ended
		}
	}
}

// leader is the agent that leads a partition.
func (h *hostile) leader(k lease.Key) *world { return h.agents[h.leads[k]] }

// drawStream draws a stream, of those that are over too.
func (h *hostile) drawStream(t *rapid.T) *stream {
	live, all := h.live()
	if rapid.Bool().Draw(t, "live") {
		all = live
	}
	if len(all) == 0 {
		return &stream{follower: nobody{}, feed: h.reader.reader.Feed()}
	}
	return all[rapid.IntRange(0, len(all)-1).Draw(t, "stream")]
}

// nobody is a follower of nothing.
type nobody struct{}

func (nobody) Wanted() (add, drop []lease.Key, changed <-chan struct{}) { return nil, nil, nil }
func (nobody) Grown([]metadata.Growth)                                  {}

func (h *hostile) actions() map[string]func(*rapid.T) {
	drawKey := func(t *rapid.T) lease.Key { return rapid.SampledFrom(h.keys).Draw(t, "partition") }
	commit := func(t *rapid.T) {
		k := drawKey(t)
		c := of(k, fmt.Sprint(h.reader.index.part(k).marks.High))
		w := h.leader(k)
		if rapid.IntRange(0, 3).Draw(t, "inline") == 0 {
			w.inlineHere(c)
			return
		}
		done := w.elsewhere(c)
		uploader := rapid.SampledFrom([]string{"leader", "before", "after", "index"}).Draw(t, "uploader")
		if uploader == "before" { // uploaded by the one that follows
			h.reader.committed(done)
		}
		if uploader == "index" { // is faster than the commit's answer
			w.fetch(k, done.extents[0].EndOffset, ample)
		}
		w.committed(done)
		if uploader == "after" {
			h.reader.committed(done)
		}
	}
	return map[string]func(*rapid.T){
		"commit":      commit,
		"commit more": commit,
		"move": func(t *rapid.T) {
			k := drawKey(t)
			old, to := h.leads[k], rapid.SampledFrom(h.names).Draw(t, "to")
			if old == to || rapid.Bool().Draw(t, "noticed") {
				h.agents[old].lose(k)
			}
			h.agents[to].lead(k)
			h.leads[k] = to
			if rapid.Bool().Draw(t, "known") {
				h.mu.Lock()
				h.holders[k] = to
				h.mu.Unlock()
			}
		},
		"delete records": func(t *rapid.T) {
			k := drawKey(t)
			offset := rapid.Int64Range(0, h.reader.index.part(k).marks.High).Draw(t, "offset")
			h.reader.index.deleteRecords(k, offset)
			if rapid.Bool().Draw(t, "through the leader") {
				h.leader(k).reader.LogStart(k, offset)
			}
		},
		"fetch": func(t *rapid.T) { h.fetch(t, drawKey(t)) },
		"wait": func(t *rapid.T) {
			k := drawKey(t)
			if h.polls[k] == nil {
				h.polls[k] = &longPoll{h.reader.poll(context.Background(), patient, at(k, h.high[k])), h.high[k]}
			}
		},
		"time passes": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.IntRange(1, 600).Draw(t, "ms")) * time.Millisecond)
		},
		"much time passes": func(t *rapid.T) { time.Sleep(15 * time.Second) },
		"ask":              func(t *rapid.T) { h.drawStream(t).ask() },
		"want":             func(t *rapid.T) { h.drawStream(t).want() },
		"tell":             func(t *rapid.T) { h.drawStream(t).tell() },
		"grow":             func(t *rapid.T) { h.drawStream(t).grow() },
		"deliver":          func(t *rapid.T) { h.drawStream(t).deliver() },
		"again": func(t *rapid.T) { // a stream that is over delivers what it delivered before
			if s := h.drawStream(t); s.over.Load() && len(s.down) > 0 {
				s.follower.Grown(s.down[0])
			}
		},
		"cut": func(t *rapid.T) {
			if s := h.drawStream(t); s.cut != nil {
				s.cut()
				synctest.Wait()
			}
		},
		"all is well":      h.settle,
		"all is well here": h.settle,
	}
}

// fetch fetches one partition anywhere, and holds the answer against the index.
func (h *hostile) fetch(t *rapid.T, k lease.Key) {
	x := h.reader.index
	offset := rapid.Int64Range(0, x.part(k).marks.High+1).Draw(t, "offset")
	h.judge(t, k, offset, h.reader.fetch(k, offset, ample))
}

func (h *hostile) judge(t *rapid.T, k lease.Key, offset int64, res fetch.Result) {
	marks := h.reader.index.part(k).marks
	if res.Err != nil {
		if !errors.Is(res.Err, fetch.ErrOffsetOutOfRange) || offset >= marks.LogStart && offset <= marks.High {
			t.Fatalf("at %d of [%d,%d]: %v", offset, marks.LogStart, marks.High, res.Err)
		}
		return
	}
	m := res.Watermarks
	if m.High > marks.High || m.High < h.high[k] || m.LogStart > marks.LogStart || m.LastStable > m.High ||
		m.LeaderEpoch > marks.LeaderEpoch || m.LeaderEpoch < h.epoch[k] {
		t.Fatalf("at %d: %+v after high %d, and the index has %+v", offset, m, h.high[k], marks)
	}
	h.high[k], h.epoch[k] = m.High, m.LeaderEpoch
	h.reader.index.check(t, k, offset, res.Records)
	if len(res.Records) == 0 && offset < m.High {
		t.Fatalf("nothing at %d of [%d,%d]", offset, m.LogStart, m.High)
	}
}

// settle has everything delivered, and time for all to be noticed. From then on the
// one that follows must know what the index knows, and those who wait have it.
func (h *hostile) settle(t *rapid.T) {
	h.mu.Lock()
	maps.Copy(h.holders, h.leads)
	h.mu.Unlock()
	for _, k := range h.keys {
		for id, w := range h.agents {
			if id != h.leads[k] {
				w.leases.forget(k)
			}
		}
	}
	for range rapid.IntRange(3, 20).Draw(t, "rounds") {
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		live, _ := h.live()
		for _, s := range live {
			s.deliver()
		}
		synctest.Wait()
	}
	for _, k := range h.keys {
		h.current(t, k)
	}
}

// current fails unless the one that follows knows the end of a partition's log.
func (h *hostile) current(t *rapid.T, k lease.Key) {
	marks := h.reader.index.part(k).marks
	if l := h.polls[k]; l != nil && l.done() {
		h.reader.index.check(t, k, l.offset, l.results[0].Records)
		delete(h.polls, k)
	} else if l != nil && marks.High > l.offset {
		t.Fatalf("who waits at %d has not heard of %d", l.offset, marks.High)
	}
	for next := max(h.high[k], marks.LogStart); ; {
		res := h.reader.fetch(k, next, ample)
		h.judge(t, k, next, res)
		if res.Err != nil {
			t.Fatalf("at %d: %v", next, res.Err)
		}
		if next < res.Watermarks.High {
			next = h.reader.index.check(t, k, next, res.Records)
			continue
		}
		if next != marks.High {
			t.Fatalf("all was told, and the end is thought to be %d, not %d", next, marks.High)
		}
		return
	}
}

// TestNoNetworkMakesAFollowerWrong delivers what agents tell each other late, in
// bursts, and after the end of the stream, while leaders change.
func TestNoNetworkMakesAFollowerWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ rapid.TB }{t}, func(rt *rapid.T) { // without the Deadline, which is not for bubbles
			h, stop := newHostile(t)
			defer stop()
			rt.Repeat(h.actions())
		})
	})
}
