package balance

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/lease"
)

// When the bucket is given up, and for how long.
const (
	giveUpAfter   = 10 * time.Second // without a successful upload
	giveUpSpread  = 5 * time.Second  // so that agents do not give up together
	giveUpFor     = time.Minute      // at most, then the agent tries again
	probeInterval = 5 * time.Second
	probeTimeout  = 5 * time.Second
	handOverLimit = 30 * time.Second // of one hand-over, with what is in flight
	spreadLimit   = 5 * time.Second  // of one for balance, for which nobody should wait
)

// For how long an agent stays away that nobody reaches. Others can't see that it is
// back while it is not listed; so it is, and finds out.
const (
	minAbsence = 30 * time.Second
	maxAbsence = 10 * time.Minute
	relapse    = time.Minute // after its return: the next absence is twice as long
)

// Why an agent that leads nothing is not ready.
var (
	errBucket = errors.New("the object store can not be reached: what this agent led was handed over")
	errReach  = errors.New("other agents can not reach this one at its advertised address: what it led was handed over")
)

// Agent is what a Loop works with. All fields but Zone are required.
type Agent struct {
	ID     string
	Zone   string // "" if it has none
	View   func() View
	Leases *lease.Manager
	Bucket *Bucket
	// Writers is told who writes what this agent leads, and what its clients write.
	Writers *Writers
	// Probe says whether the bucket can be written.
	Probe func(ctx context.Context) error
	// Isolated has an element while nobody reaches the agent: where other agents can't,
	// clients can't either.
	Isolated <-chan struct{}
	// HandOver hands leases over, as far as this is done before ctx ends: to the agents
	// that to names, or if it is nil to those who should lead without this one.
	HandOver func(ctx context.Context, reason lease.HandoverReason, leases []*lease.Lease, to lease.Successor)
	// Withdraw has this agent's clients sent to the others, which count on it no
	// more, until Return. The view is a new one afterwards.
	Withdraw func(ctx context.Context)
	Return   func()
	Log      *slog.Logger
}

// Loop is the work of one agent.
type Loop struct {
	Agent
	planner  planner
	follower follower

	lost      atomic.Bool // the bucket was given up
	unreached atomic.Bool // the agent gave up, since nobody reaches it

	absence  time.Duration // the last that nobody reached the agent; 0: none
	returned time.Time     // from it
}

// New makes a loop. It registers streamhouse_agent_bucket_lost and
// streamhouse_agent_unreached.
func New(a Agent, reg prometheus.Registerer) *Loop {
	l := &Loop{
		Agent: a, planner: planner{self: a.ID},
		follower: follower{zone: a.Zone, writers: a.Writers, watched: make(map[lease.Key]*watch)},
	}
	gauge := func(name, help string, value *atomic.Bool) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			if value.Load() {
				return 1
			}
			return 0
		})
	}
	reg.MustRegister(
		gauge("streamhouse_agent_bucket_lost", "1 while the agent leads nothing, since it can't upload to the object store.", &l.lost),
		gauge("streamhouse_agent_unreached", "1 while the agent leads nothing, since no other agent reaches it at its advertised address.", &l.unreached),
	)
	return l
}

// HealthCheck returns nil while the bucket is believed to be there, and others to
// reach the agent.
func (l *Loop) HealthCheck() error {
	switch {
	case l.lost.Load():
		return errBucket
	case l.unreached.Load():
		return errReach
	}
	return nil
}

// Run hands leases over until ctx ends, and returns nil then.
func (l *Loop) Run(ctx context.Context) error {
	patience := giveUpAfter + rand.N(giveUpSpread)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.Isolated:
			l.stayAway(ctx)
			continue
		case <-tick.C:
		}
		switch failing := l.Bucket.Failing(); {
		case failing < spreadLimit: // or a hand-over would wait for the same uploads
			l.spread(ctx)
		case failing >= patience && l.View().OtherLeads(l.ID):
			l.doWithout(ctx, failing)
		}
	}
}

// spread hands over what is due for balance, and what should follow its writers: the
// two together at their pace, and neither before the agents are calm.
func (l *Loop) spread(ctx context.Context) {
	leases := l.Leases.Leases()
	seen := make([]held, len(leases))
	for i, h := range leases {
		seen[i] = held{h.Key(), h.LeaderEpoch(), h.Age()}
	}
	now, view := l.Writers.now(), l.View()
	places := l.planner.plan(now, view, seen)
	follow, to := l.follower.plan(now, view, seen)
	follow = slices.DeleteFunc(follow, func(at int) bool { return slices.Contains(places, at) })
	if !l.planner.calm(now) {
		follow = nil
	}
	follow = follow[:min(len(follow), budget(len(leases))-len(places))]
	l.move(ctx, lease.ForBalance, leases, places, nil)
	l.move(ctx, lease.ForWriters, leases, follow, func(k lease.Key) (string, bool) {
		agent, ok := to[k]
		return agent, ok
	})
}

// move hands over the leases at those places, if there are any.
func (l *Loop) move(ctx context.Context, reason lease.HandoverReason, leases []*lease.Lease, places []int, to lease.Successor) {
	if len(places) == 0 {
		return
	}
	moves := make([]*lease.Lease, len(places))
	for i, at := range places {
		moves[i] = leases[at]
	}
	ctx, cancel := context.WithTimeout(ctx, spreadLimit)
	defer cancel()
	l.HandOver(ctx, reason, moves, to)
}

// doWithout gives up what the agent leads, and waits until the bucket is back.
//
// The agent withdraws first, and looks again: of agents that lose the bucket at
// once, each would count on the other. Those that find themselves alone return.
func (l *Loop) doWithout(ctx context.Context, failing time.Duration) {
	l.lost.Store(true)
	defer l.lost.Store(false)
	begun := time.Now()
	bounded, cancel := context.WithTimeout(ctx, handOverLimit)
	defer cancel()
	l.Withdraw(bounded)
	if !l.View().OtherLeads(l.ID) {
		l.Log.Error("no upload has succeeded for a while, but no other agent leads: keeping what this one leads",
			"failing_for", failing.Round(time.Millisecond).String())
		l.Bucket.forgive()
		l.Return()
		return
	}
	l.Log.Error("no upload has succeeded for a while: handing over what this agent leads",
		"failing_for", failing.Round(time.Millisecond).String(), "leases", l.Leases.Count())
	l.Bucket.giveUp()
	var err error // of the last probe
	if !l.stepDown(ctx, lease.ForBucket, giveUpFor, func() bool { err = l.probe(ctx); return err == nil }) {
		return
	}
	l.Log.Info("leading again", "after", time.Since(begun).Round(time.Millisecond).String(), "probe", err)
}

// stayAway gives up what the agent leads, since nobody reaches it, for a while, which
// is longer each time if that did not help.
func (l *Loop) stayAway(ctx context.Context) {
	l.unreached.Store(true)
	defer l.unreached.Store(false)
	if l.absence > 0 && time.Since(l.returned) < relapse {
		l.absence = min(2*l.absence, maxAbsence)
	} else {
		l.absence = minAbsence
	}
	l.Log.Error("no other agent reaches this one, though it reaches the metadata store: handing over what it leads; "+
		"check that its advertised address is right, and that no firewall or broken network keeps others from it",
		"leases", l.Leases.Count(), "away_for", l.absence.String())
	bounded, cancel := context.WithTimeout(ctx, handOverLimit)
	defer cancel()
	l.Withdraw(bounded)
	if !l.stepDown(ctx, lease.ForReach, l.absence, func() bool { return false }) {
		return
	}
	l.returned = time.Now()
	l.Log.Info("back in the cluster, and acquiring leases again; others tell whether they reach this agent", "after", l.absence.String())
}

// stepDown gives up what the agent leads after it has withdrawn, until it has
// recovered or the limit is over, and returns. It says false if the agent ends
// meanwhile.
//
// Leases that were not quiet at first, since uploads were under way, are handed over
// later.
func (l *Loop) stepDown(ctx context.Context, reason lease.HandoverReason, limit time.Duration, recovered func() bool) bool {
	deadline := time.Now().Add(limit)
	bounded, cancel := context.WithTimeout(ctx, handOverLimit)
	defer cancel()
	defer l.Leases.Retire(bounded)()
	l.HandOver(bounded, reason, l.Leases.Leases(), nil)
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		if left := l.Leases.Leases(); len(left) > 0 {
			bounded, cancel := context.WithTimeout(ctx, probeInterval)
			l.HandOver(bounded, reason, left, nil)
			cancel()
		}
		if recovered() {
			break
		}
	}
	if ctx.Err() != nil {
		return false
	}
	l.Bucket.forgive()
	l.Return()
	return true
}

func (l *Loop) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return l.Probe(ctx)
}
