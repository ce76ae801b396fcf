package balance

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
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
)

// errBucket is why an agent without its bucket is not ready.
var errBucket = errors.New("the object store can not be reached: what this agent led was handed over")

// Agent is what a Loop works with. All fields are required.
type Agent struct {
	ID     string
	View   func() View
	Leases *lease.Manager
	Bucket *Bucket
	// Probe says whether the bucket can be written.
	Probe func(ctx context.Context) error
	// HandOver hands leases over to those who should lead without this agent, as
	// far as this is done before ctx ends.
	HandOver func(ctx context.Context, reason lease.HandoverReason, leases []*lease.Lease)
	// Withdraw has this agent's clients sent to the others, which count on it no
	// more, until Return. The view is a new one afterwards.
	Withdraw func(ctx context.Context)
	Return   func()
	Log      *slog.Logger
}

// Loop is the work of one agent.
type Loop struct {
	Agent
	start   time.Time
	planner planner
	lost    atomic.Bool // the bucket was given up
}

// New makes a loop. It registers streamhouse_agent_bucket_lost.
func New(a Agent, reg prometheus.Registerer) *Loop {
	l := &Loop{Agent: a, start: time.Now(), planner: planner{self: a.ID}}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "streamhouse_agent_bucket_lost",
		Help: "1 while the agent leads nothing, since it can't upload to the object store.",
	}, func() float64 {
		if l.lost.Load() {
			return 1
		}
		return 0
	}))
	return l
}

// HealthCheck returns nil while the bucket is believed to be there.
func (l *Loop) HealthCheck() error {
	if l.lost.Load() {
		return errBucket
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
		case <-tick.C:
		}
		switch failing := l.Bucket.Failing(); {
		case failing < patience:
			l.spread(ctx)
		case l.View().OtherLeads(l.ID):
			l.doWithout(ctx, failing)
		}
	}
}

// spread hands over what is due for balance.
func (l *Loop) spread(ctx context.Context) {
	leases := l.Leases.Leases()
	seen := make([]held, len(leases))
	for i, h := range leases {
		seen[i] = held{h.Key(), h.Age()}
	}
	places := l.planner.plan(time.Since(l.start), l.View(), seen)
	if len(places) == 0 {
		return
	}
	moves := make([]*lease.Lease, len(places))
	for i, at := range places {
		moves[i] = leases[at]
	}
	ctx, cancel := context.WithTimeout(ctx, handOverLimit)
	defer cancel()
	l.HandOver(ctx, lease.ForBalance, moves)
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
	var err error
	if l.View().OtherLeads(l.ID) {
		l.Log.Error("no upload has succeeded for a while: handing over what this agent leads",
			"failing_for", failing.Round(time.Millisecond).String(), "leases", l.Leases.Count())
		defer l.Leases.Retire(bounded)()
		l.HandOver(bounded, lease.ForBucket, l.Leases.Leases())
		err = l.awaitBucket(ctx, begun.Add(giveUpFor))
	} else {
		l.Log.Error("no upload has succeeded for a while, but no other agent leads: keeping what this one leads",
			"failing_for", failing.Round(time.Millisecond).String())
	}
	if ctx.Err() != nil {
		return // the agent ends
	}
	l.Return()
	l.Bucket.forgive()
	l.Log.Info("leading again", "after", time.Since(begun).Round(time.Millisecond).String(), "probe", err)
}

// awaitBucket returns nil when a probe has succeeded, or the last error at the
// deadline. Leases that were not quiet before, since uploads were under way, are
// handed over meanwhile.
func (l *Loop) awaitBucket(ctx context.Context, deadline time.Time) (err error) {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if left := l.Leases.Leases(); len(left) > 0 {
			bounded, cancel := context.WithTimeout(ctx, probeInterval)
			l.HandOver(bounded, lease.ForBucket, left)
			cancel()
		}
		if err = l.probe(ctx); err == nil {
			return nil
		}
	}
	return err
}

func (l *Loop) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return l.Probe(ctx)
}
