package fetch

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// Peers are the agents whose feeds this agent can follow.
type Peers interface {
	// Holder names the agent that leads a partition, if it is another one that can
	// be followed.
	Holder(k lease.Key) (agentID string, ok bool)
	// Follow has an agent's feed tell f, until ctx or the connection ends. It calls
	// Wanted when it begins and whenever changed is closed, and Feed.Want with that
	// over there; and Grown with what Feed.Next returns there, in order, and with
	// nothing every 200 ms or so as a sign of life. What was told of a partition before
	// it was dropped must not come after it was added again; and a connection over
	// which nobody answers must end.
	Follow(ctx context.Context, agentID string, f Follower) error
}

// Follower is this agent's end of one connection to another one's feed.
type Follower interface {
	// Wanted returns what is to be added to the feed and what is to be dropped from
	// it since the last call, and a channel that is closed when there is more.
	Wanted() (add, drop []lease.Key, changed <-chan struct{})
	// Grown takes what the feed tells. It does not wait.
	Grown(news []metadata.Growth)
}

const (
	// followedFor is how long a partition is followed after it was last fetched.
	followedFor = 10 * time.Second
	// followRetry is how long an agent is let alone after its feed has ended, and a
	// partition after its feed said that it does not lead it.
	followRetry = time.Second
)

// follower implements Follower. What it hears after its end does nothing.
type follower struct {
	r       *Reader
	agentID string
	stop    context.CancelFunc
	heard   atomic.Int64 // when Grown was last called: ns since r.born; 0: never
	over    atomic.Bool  // set under mu

	mu      sync.Mutex
	again   time.Time // once over: when the agent may be asked again
	keys    map[lease.Key]*followed
	wants   map[lease.Key]bool // to be added or dropped, as Wanted will say
	changed chan struct{}
}

// followed is a partition in a follower.
type followed struct {
	view  *view
	state followState
	round uint64    // of pursuit in which it was last wanted
	until time.Time // when it may be asked for again, if it was left
}

type followState int

const (
	followAsked followState = iota
	followTold
	followLeft // because nobody wants it, or the agent does not lead it
)

// live says whether the feed was heard lately.
func (f *follower) live(now time.Time) bool {
	heard := f.heard.Load()
	return heard > 0 && !f.over.Load() && int64(now.Sub(f.r.born))-heard <= int64(f.r.cfg.FeedFresh)
}

func (f *follower) Wanted() (add, drop []lease.Key, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, wanted := range f.wants {
		if wanted {
			add = append(add, k)
			continue
		}
		drop = append(drop, k)
		if s := f.keys[k]; s != nil { // news may be on their way still
			s.until = time.Now().Add(followRetry)
		}
	}
	clear(f.wants)
	return add, drop, f.changed
}

func (f *follower) Grown(news []metadata.Growth) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over.Load() {
		return
	}
	now := time.Now()
	f.heard.Store(max(int64(now.Sub(f.r.born)), 1))
	for i := range news {
		f.r.metrics.growth[f.grown(&news[i], now)].Inc()
	}
	f.announce()
}

func (f *follower) grown(g *metadata.Growth, now time.Time) growthOutcome {
	s := f.keys[g.Key]
	switch {
	case s == nil || s.state == followLeft:
		return growthUnwanted
	case g.Watermarks.LeaderEpoch == notLed:
		f.leave(g.Key, s, now)
		return growthEnded
	}
	s.state = followTold
	return s.view.grown(g, f, now)
}

// wish has a partition followed, or followed on.
func (f *follower) wish(k lease.Key, v *view, round uint64, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over.Load() {
		return
	}
	s := f.keys[k]
	switch _, pending := f.wants[k]; {
	case s != nil && s.state == followLeft && (pending || now.Before(s.until)):
	case s == nil || s.state == followLeft:
		f.keys[k] = &followed{view: v, round: round}
		f.wants[k] = true
	case s.view != v: // of a topic that was deleted
		f.leave(k, s, now)
	default:
		s.round = round
	}
}

// sweep drops what was not wished for in this round, and returns how many
// partitions are left, and of how many of them the feed tells.
func (f *follower) sweep(round uint64, now time.Time) (wanted, told int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, s := range f.keys {
		_, pending := f.wants[k]
		switch {
		case s.state == followLeft && !pending && !now.Before(s.until):
			delete(f.keys, k)
		case s.state == followLeft:
		case s.round != round:
			f.leave(k, s, now)
		default:
			wanted++
			if s.state == followTold {
				told++
			}
		}
	}
	f.announce()
	return wanted, told
}

// leave drops a partition. It stays a while, in which what is told of it counts for
// nothing: so news of before are not taken for what is so when it is added again.
func (f *follower) leave(k lease.Key, s *followed, now time.Time) {
	s.view.unfed(f)
	s.state, s.until = followLeft, now.Add(followRetry)
	if f.wants[k] { // the feed has never heard of it
		delete(f.wants, k)
	} else {
		f.wants[k] = false
	}
}

// announce tells the connection that there is something to add or to drop.
func (f *follower) announce() {
	if len(f.wants) > 0 {
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// end makes the follower deaf.
func (f *follower) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over.Store(true)
	f.again = time.Now().Add(followRetry)
	for _, s := range f.keys {
		s.view.unfed(f)
	}
	f.keys = nil
}

// forgotten says whether a follower has ended and its agent may be asked again.
func (f *follower) forgotten(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.over.Load() && !now.Before(f.again)
}

// pursuit are the followers of a Reader. Run's goroutine alone uses it.
type pursuit struct {
	r         *Reader
	ctx       context.Context // of all followers
	stop      context.CancelFunc
	followers map[string]*follower
	round     uint64
	running   sync.WaitGroup
}

func newPursuit(ctx context.Context, r *Reader) *pursuit {
	p := &pursuit{r: r, followers: map[string]*follower{}}
	p.ctx, p.stop = context.WithCancel(ctx)
	return p
}

// close ends all followers and returns when they have ended.
func (p *pursuit) close() {
	p.stop()
	p.running.Wait()
}

// home has the partitions that are waited for, or were fetched lately, followed
// where they are led, and ends what nobody needs any more.
func (p *pursuit) home() {
	peers := p.r.cfg.Peers
	if peers == nil {
		return
	}
	now := time.Now()
	p.round++
	for _, w := range p.r.views.wanted(now.Add(-followedFor)) {
		if id, ok := peers.Holder(w.key); ok {
			p.follower(id).wish(w.key, w.view, p.round, now)
		}
	}
	total := 0
	for id, f := range p.followers {
		wanted, told := f.sweep(p.round, now)
		total += told
		if wanted == 0 {
			f.stop()
		}
		if f.forgotten(now) {
			delete(p.followers, id)
		}
	}
	p.r.metrics.followed.Set(float64(total))
}

// idle says that nothing is followed.
func (p *pursuit) idle() bool { return len(p.followers) == 0 }

func (p *pursuit) follower(agentID string) *follower {
	if f := p.followers[agentID]; f != nil {
		return f
	}
	f := &follower{
		r: p.r, agentID: agentID, keys: map[lease.Key]*followed{}, wants: map[lease.Key]bool{}, changed: make(chan struct{}),
	}
	p.followers[agentID] = f
	ctx, stop := context.WithCancel(p.ctx)
	f.stop = stop
	p.running.Go(func() {
		defer stop()
		err := p.r.cfg.Peers.Follow(ctx, agentID, f)
		f.end()
		if ctx.Err() == nil {
			p.r.log.Info("another agent does not tell of its commits any more: the metadata store is asked instead",
				"agent", agentID, "error", err)
		}
	})
	return f
}

// fed says what tells a view of its partition's growth.
type fed struct {
	by    *follower // nil: nothing
	epoch int32     // in which the agent that is followed leads
	// until is an offset up to which the log has grown, as was told by somebody who
	// did not tell the extents; unknownEnd: it may have grown up to anywhere.
	until int64
	// since is when the view stopped to be complete; if it never was, and until is
	// known, zero.
	since time.Time
}

const unknownEnd = math.MaxInt64

// fresh says that the view knows the log's end though this agent does not lead:
// who leads, in the view's leader epoch, tells of each commit, and was heard lately.
func (v *view) fresh(now time.Time) bool {
	return v.following(now) && v.marks.High >= v.fed.until
}

// told says that the view knows the log's end, or knew it not too long ago and the
// poller is on its way.
func (v *view) told(oldest ages) bool {
	return v.fresh(oldest.now) || v.following(oldest.now) && v.fed.until != unknownEnd && v.fed.since.After(oldest.end)
}

func (v *view) following(now time.Time) bool {
	f := &v.fed
	return f.by != nil && f.epoch == v.marks.LeaderEpoch && f.by.live(now)
}

func (v *view) unfed(by *follower) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fed.by == by {
		v.fed = fed{}
	}
}

// growthOutcome is what became of a growth.
type growthOutcome int

const (
	growthApplied  growthOutcome = iota
	growthKnown                  // there was nothing new in it
	growthMarks                  // the index is to be asked for it
	growthOld                    // of a leader epoch that is over
	growthEnded                  // the agent does not lead
	growthUnwanted               // of a partition that is not followed any more
	growthOutcomes
)

var growthOutcomeNames = [growthOutcomes]string{"applied", "known", "marks", "old", "ended", "unwanted"}

// grown applies what the partition's leader told, and wakes who waits if that is
// news. The rules are those of read and committed.
func (v *view) grown(g *metadata.Growth, by *follower, now time.Time) growthOutcome {
	v.mu.Lock()
	defer v.mu.Unlock()
	m := &g.Watermarks
	switch {
	case v.gone:
		return growthUnwanted
	case v.known && m.LeaderEpoch < v.marks.LeaderEpoch, v.fed.by == by && m.LeaderEpoch < v.fed.epoch:
		return growthOld
	case v.fed.by != by, m.LeaderEpoch > v.fed.epoch: // what came before, nobody told
		v.fed = fed{by: by, epoch: m.LeaderEpoch, until: unknownEnd, since: now}
	}
	if m.High < 0 || !v.known && m.LogStart < 0 {
		return v.missed(unknownEnd, now)
	}
	extents := sound(g)
	if v.known && m.High > v.marks.High && len(extents) == 0 {
		v.raiseLogStart(m.LogStart)
		return v.missed(m.High, now)
	}
	if v.fed.until == unknownEnd {
		v.fed.until = 0
	}
	news := !v.known || m.High > v.marks.High || m.LeaderEpoch > v.marks.LeaderEpoch
	if !v.known || m.High > v.marks.High {
		v.extend(extents)
		v.known = true
		v.marks.High, v.marks.LastStable = m.High, max(v.marks.LastStable, min(m.LastStable, m.High))
	}
	v.marks.LeaderEpoch = m.LeaderEpoch
	if v.raiseLogStart(m.LogStart); m.LogStart >= 0 {
		v.confirmed = now
	}
	if !news {
		return growthKnown
	}
	v.wake()
	return growthApplied
}

// missed notes that the log has grown by what was not told, and has the poller ask
// the index if somebody waits.
func (v *view) missed(until int64, now time.Time) growthOutcome {
	switch f := &v.fed; {
	case until == unknownEnd, v.marks.High >= f.until:
		f.since = now
	case f.until == unknownEnd:
		f.since = time.Time{}
	}
	v.fed.until = until
	if len(v.waiters) > 0 {
		v.fed.by.r.pollSoon()
	}
	return growthMarks
}

// asked takes note of an answer of the index, which knew what was told before it was
// asked.
func (f *fed) asked(at time.Time) {
	if f.until == unknownEnd && at.After(f.since) {
		f.until = 0
	}
}

// extend adds extents that reach the new end of the log to the tail, or makes them
// the tail if they do not follow on it.
func (v *view) extend(extents []metadata.Extent) {
	for i := range extents {
		if v.known && extents[i].BaseOffset == v.marks.High {
			extents = extents[i:]
			break
		}
	}
	if len(extents) == 0 || !v.known || extents[0].BaseOffset != v.marks.High {
		v.dropTail()
	}
	for _, e := range extents {
		v.push(e)
	}
}

// sound returns the extents of a growth if they are what the contract says.
func sound(g *metadata.Growth) []metadata.Extent {
	for i := range g.Extents {
		e := &g.Extents[i]
		end := g.Watermarks.High
		if i+1 < len(g.Extents) {
			end = g.Extents[i+1].BaseOffset
		}
		if e.BaseOffset < 0 || e.BaseOffset >= e.EndOffset || e.EndOffset != end || inline(e) {
			return nil
		}
	}
	return g.Extents
}
