package fetch

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

const (
	// feedExtents is how many extents of a partition wait for Next. Where there are
	// more, the follower is told that there is something new, and asks the index.
	feedExtents = 64
	// feedCheck is how often a feed looks whether this agent leads what it tells of.
	feedCheck = 200 * time.Millisecond
)

// notLed is the leader epoch of a growth that says that this agent does not lead
// the partition, and says no more of it unless it is added again.
const notLed = -1

// Feed tells another agent how the partitions grow that this agent leads. Want may
// be called while Next is under way.
type Feed struct {
	r       *Reader
	wake    chan struct{} // there may be something to tell
	checked time.Time     // Next's own

	mu      sync.Mutex
	closed  bool
	outlets map[lease.Key]*outlet
	queue   []*outlet // those with news, the oldest first
}

// outlet is where a partition's news wait for a feed's Next.
type outlet struct {
	feed  *Feed
	view  *view
	key   lease.Key
	epoch int32 // in which this agent said that it leads; guarded by view.mu

	queued bool            // guarded by feed.mu, as is news
	news   metadata.Growth // valid while queued
}

// Feed returns a feed of no partitions. It must be closed.
func (r *Reader) Feed() *Feed {
	return &Feed{r: r, wake: make(chan struct{}, 1), checked: time.Now(), outlets: map[lease.Key]*outlet{}}
}

// Want drops partitions from the feed, and adds others. Of those that are added the
// present state is told at once; or, when they are added and whenever it is so, that
// this agent does not lead them: in leader epoch -1. Then they have to be added anew.
func (f *Feed) Want(add, drop []lease.Key) {
	for _, k := range drop {
		f.drop(k)
	}
	for _, k := range add {
		f.add(k)
	}
}

func (f *Feed) add(k lease.Key) {
	if _, leads := f.r.leases.Leads(k); !leads {
		f.drop(k)
		(&outlet{feed: f, key: k}).replace(ended(k))
		return
	}
	v := f.r.views.get(k)
	v.mu.Lock()
	defer v.mu.Unlock()
	f.mu.Lock()
	o := f.outlets[k]
	if o == nil && !f.closed {
		o = &outlet{feed: f, view: v, key: k}
		f.outlets[k] = o
		v.outlets = append(v.outlets, o)
	}
	f.mu.Unlock()
	if o != nil {
		o.present()
	}
}

func (f *Feed) drop(k lease.Key) {
	f.mu.Lock()
	o := f.outlets[k]
	f.mu.Unlock()
	if o == nil {
		return
	}
	o.view.mu.Lock()
	defer o.view.mu.Unlock()
	o.view.unlist(o)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.outlets, k)
	f.queue = slices.DeleteFunc(f.queue, func(q *outlet) bool { return q == o })
}

// ended is the news that there are no more.
func ended(k lease.Key) metadata.Growth {
	return metadata.Growth{Key: k, Watermarks: metadata.Watermarks{LogStart: -1, LastStable: -1, High: -1, LeaderEpoch: notLed}}
}

// Next waits for news and returns them. It fails when ctx, the feed or the reader
// ends. There must be one caller at a time.
func (f *Feed) Next(ctx context.Context) ([]metadata.Growth, error) {
	check := time.NewTimer(feedCheck)
	defer check.Stop()
	for {
		if now := time.Now(); now.Sub(f.checked) >= feedCheck {
			f.checked = now
			f.check()
		}
		news, closed := f.take()
		switch {
		case closed:
			return nil, errClosed
		case len(news) > 0:
			return news, nil
		}
		select {
		case <-f.wake:
		case <-check.C:
			check.Reset(feedCheck)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-f.r.running.Done():
			return nil, errClosed
		}
	}
}

// Close ends the feed.
func (f *Feed) Close() {
	f.mu.Lock()
	f.closed = true
	outlets := f.outlets
	f.outlets = nil
	f.mu.Unlock()
	f.nudge()
	for _, o := range outlets {
		o.view.mu.Lock()
		o.view.unlist(o)
		o.view.mu.Unlock()
	}
}

// check finds the partitions whose leadership has changed though nothing was
// committed.
func (f *Feed) check() {
	f.mu.Lock()
	outlets := slices.Collect(maps.Values(f.outlets))
	f.mu.Unlock()
	for _, o := range outlets {
		o.view.mu.Lock()
		if epoch, leads := f.r.leases.Leads(o.key); !leads || epoch != o.epoch {
			o.present()
		}
		o.view.mu.Unlock()
	}
}

func (f *Feed) take() (news []metadata.Growth, closed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	news = make([]metadata.Growth, len(f.queue))
	for i, o := range f.queue {
		news[i] = o.news
		o.news, o.queued = metadata.Growth{}, false
	}
	clear(f.queue)
	f.queue = f.queue[:0]
	return news, f.closed
}

// nudge has Next look again.
func (f *Feed) nudge() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// present tells what the partition is like now, as far as this agent knows. The
// caller has view.mu.
func (o *outlet) present() {
	v := o.view
	epoch, leads := o.feed.r.leases.Leads(o.key)
	if v.gone || !leads {
		o.end()
		return
	}
	o.epoch = epoch
	news := ended(o.key) // of what this agent does not know yet
	news.Watermarks.LeaderEpoch = epoch
	if v.known && v.marks.LeaderEpoch == epoch {
		news.Watermarks, news.Extents = v.marks, v.stored()
		if time.Since(v.confirmed) > tailAge {
			news.Watermarks.LogStart = -1
		}
	}
	o.replace(news)
}

// end tells that this agent does not lead the partition. The caller has view.mu.
func (o *outlet) end() {
	o.view.unlist(o)
	f := o.feed
	f.mu.Lock()
	if f.outlets[o.key] == o {
		delete(f.outlets, o.key)
	}
	f.mu.Unlock()
	o.replace(ended(o.key))
}

// replace makes news the only ones of the partition.
func (o *outlet) replace(news metadata.Growth) {
	f := o.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	o.news = news
	o.enqueue()
}

// grow adds an extent, and marks, to the news. e is nil if only the marks changed.
func (o *outlet) grow(marks metadata.Watermarks, e *metadata.Extent) {
	f := o.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	g := &o.news
	switch n := len(g.Extents); {
	case e == nil:
	case inline(e): // the index has its bytes
		g.Extents = nil
	case !o.queued, n > 0 && n < feedExtents && g.Extents[n-1].EndOffset == e.BaseOffset:
		g.Extents = append(g.Extents, *e)
	default:
		g.Extents = nil
	}
	if o.queued {
		marks.LogStart = max(marks.LogStart, g.Watermarks.LogStart)
	}
	g.Key, g.Watermarks = o.key, marks
	o.enqueue()
}

// enqueue has Next take the news. The caller has feed.mu.
func (o *outlet) enqueue() {
	if f := o.feed; !o.queued && !f.closed {
		o.queued = true
		f.queue = append(f.queue, o)
		f.nudge()
	}
}

// tell offers news of the partition to all feeds that want it. A feed to which
// this agent said that it leads in another leader epoch is told who leads now.
func (v *view) tell(marks metadata.Watermarks, e *metadata.Extent) {
	for _, o := range slices.Backward(v.outlets) { // ends leave the list
		if o.epoch == marks.LeaderEpoch {
			o.grow(marks, e)
		} else {
			o.present()
		}
	}
}

// stored returns the newest extents that are in objects.
func (v *view) stored() []metadata.Extent {
	n := len(v.tail)
	for n > 0 && !inline(&v.tail[n-1]) {
		n--
	}
	return v.tail[n:len(v.tail):len(v.tail)]
}

// unlist takes an outlet off the view's list.
func (v *view) unlist(o *outlet) {
	if i := slices.Index(v.outlets, o); i >= 0 {
		v.outlets = slices.Delete(v.outlets, i, i+1)
	}
}
