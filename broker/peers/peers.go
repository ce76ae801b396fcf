package peers

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/metadata"
)

// Config sets the pace of a Watcher.
type Config struct {
	// Interval is the time between two questions to a peer.
	Interval time.Duration
	// Timeout is how long a peer may take for its answer.
	Timeout time.Duration
	// Patience is how long a peer may take to answer a challenge by the store.
	Patience time.Duration
	// Dial connects to a peer's host:port, until ctx ends.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// DefaultConfig finds a frozen agent within Interval + Timeout + Patience. A
// timeout that was too short costs a challenge, patience that was too short a
// burial.
func DefaultConfig() Config {
	return Config{
		Interval: 500 * time.Millisecond, Timeout: time.Second, Patience: 2 * time.Second,
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		},
	}
}

// Store decides about life and death: part of metadata.Agents.
type Store interface {
	Challenge(ctx context.Context, agentID string, session uuid.UUID) error
	Bury(ctx context.Context, agentID string, session uuid.UUID, patience time.Duration) (metadata.Burial, error)
	Report(ctx context.Context, r metadata.Report) error
}

// Cluster is the view of the cluster.
type Cluster interface {
	// ID is the cluster's.
	ID() string
	// Agents lists the agents of the view as it is. Not to be changed.
	Agents() []metadata.Agent
	// Refresh makes the view a new one.
	Refresh(ctx context.Context) error
}

// Watcher watches the peers of one agent.
type Watcher struct {
	cfg     Config
	self    metadata.Agent
	store   Store
	cluster Cluster
	metrics *Metrics
	log     *slog.Logger
	news    news
	doubted chan string // ids of agents
}

// New makes a watcher for the agent self, as it is registered.
func New(cfg Config, self metadata.Agent, store Store, cluster Cluster, m *Metrics, log *slog.Logger) *Watcher {
	return &Watcher{cfg: cfg, self: self, store: store, cluster: cluster, metrics: m, log: log, doubted: make(chan string, maxDoubts)}
}

// life is one session of an agent.
type life struct {
	agentID string
	session uuid.UUID
}

// Run watches the peers that are this agent's to watch until ctx ends, and
// returns nil then.
func (w *Watcher) Run(ctx context.Context) error {
	watches := make(map[life]context.CancelFunc)
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { w.lookAtDoubted(ctx) })
	tick := time.NewTicker(w.cfg.Interval)
	defer tick.Stop()
	for {
		mine := make(map[life]bool)
		for _, a := range watched(w.self.NodeID, w.cluster.Agents()) {
			l := life{a.ID, a.Session}
			mine[l] = true
			if watches[l] == nil {
				watching, end := context.WithCancel(ctx)
				watches[l] = end
				running.Go(func() { w.watch(watching, a) })
			}
		}
		for l, end := range watches {
			if !mine[l] {
				end()
				delete(watches, l)
			}
		}
		w.news.watch(len(watches))
		w.metrics.watched.Set(float64(len(watches)))
		select {
		case <-ctx.Done():
			for _, end := range watches {
				end()
			}
			return nil
		case <-tick.C:
		}
	}
}

// watch is the watch over one session of a peer.
type watch struct {
	peer metadata.Agent

	mu       sync.Mutex
	lastSign time.Time // of life; at first when the watch began

	failed   chan error    // has the reason of the last failed probe, until it is taken
	answered chan struct{} // has an element after an answer, until it is taken
	reported bool          // the store has it that the peer can't be reached from here
}

// watch watches a peer until ctx ends.
func (w *Watcher) watch(ctx context.Context, peer metadata.Agent) {
	h := &watch{peer: peer, lastSign: time.Now(), failed: make(chan error, 1), answered: make(chan struct{}, 1)}
	var probing sync.WaitGroup
	defer probing.Wait()
	probing.Go(func() { w.keepProbing(ctx, h) })
	defer w.takeBack(ctx, h)
	for alarms := 0; ; {
		select {
		case <-ctx.Done():
			return
		case reason := <-h.failed:
			found := w.suspect(ctx, h, reason)
			if found == unreachable { // which may last
				found = h.await(ctx, min(calm<<alarms, maxCalm))
				alarms = min(alarms+1, maxAlarms)
			}
			switch found {
			case answers:
				alarms = 0
				w.takeBack(ctx, h)
			case ended: // and so does the watch, when the view is a new one
				pause(ctx, calm)
			}
			h.forgetFailure()
		}
	}
}

// finding is what became of a suspicion.
type finding int8

const (
	answers     finding = iota // the peer answers again
	ended                      // the peer's session has ended
	unreachable                // the peer lives, and can't be reached from here
)

// Times from the end of a suspicion of a peer that does not answer to the next.
const (
	calm      = 5 * time.Second
	maxCalm   = time.Minute
	maxAlarms = 4 // calm<<maxAlarms is above maxCalm
)

// probeRetry is the time between two probes that fail at once.
const probeRetry = 100 * time.Millisecond

// keepProbing probes the peer until ctx ends, and passes on why probes fail.
func (w *Watcher) keepProbing(ctx context.Context, h *watch) {
	for delay := probeRetry; ctx.Err() == nil; delay = min(2*delay, w.cfg.Interval) {
		err := w.probe(ctx, h.peer, func() {
			delay = probeRetry
			h.mu.Lock()
			defer h.mu.Unlock()
			h.lastSign = time.Now()
			select {
			case h.answered <- struct{}{}:
			default:
			}
		})
		select {
		case h.failed <- err:
		default:
		}
		pause(ctx, delay)
	}
}

// firstLook is when the store is first asked again for a burial. A process that
// has just died is gone from the store some milliseconds later.
const (
	firstLook = 25 * time.Millisecond
	lastLook  = time.Second
)

// settle is how long agents may take to find back to a store that was away,
// before their absence means anything.
const settle = 1500 * time.Millisecond

// A challenge has to be heard of and answered, at the pace that the store has for
// this agent: so many calls on top of its patience.
const answerTrips = 3

// never is a patience with which silence is no evidence.
const never = 1000 * time.Hour

// suspect finds out what became of a peer that did not answer. What it returns
// when ctx ends means nothing.
func (w *Watcher) suspect(ctx context.Context, h *watch, reason error) finding {
	defer w.news.expect(h.peer.Session, w.cfg.Patience+verdictTime)()
	a, since := h.peer, time.Now()
	w.log.Debug("a peer does not answer", "peer", a.ID, "error", reason)
	if errors.Is(reason, kerr.RebootstrapRequired) {
		pause(ctx, settle) // it has lost the store, as others may have
	}
	var challenged time.Time // zero: not yet, or the answer could not come through
	patience := w.cfg.Patience
	for delay := firstLook; !h.last().After(since); {
		mute := patience // after which silence is evidence
		if challenged.IsZero() || time.Since(challenged) < patience {
			mute = never
		}
		asked := time.Now()
		burial, err := w.store.Bury(ctx, a.ID, a.Session, mute)
		patience = max(patience, w.cfg.Patience+answerTrips*time.Since(asked))
		switch {
		case ctx.Err() != nil:
			return ended
		case err != nil:
			w.log.Debug("the store could not be asked about a peer", "peer", a.ID, "error", err)
			challenged = time.Time{}
			pause(ctx, settle)
			continue
		case burial == metadata.EndedBefore || burial.Buried():
			w.buried(ctx, h, burial, reason)
			return ended
		case challenged.IsZero() && delay > firstLook:
			w.report(ctx, h) // first: one that is challenged looks for reports
			if err := w.store.Challenge(ctx, a.ID, a.Session); err == nil {
				challenged = time.Now()
				w.metrics.challenges.Inc()
			}
		case mute != never:
			w.metrics.falseAlarms.Inc()
			w.log.Warn("a peer lives and can not be reached from here", "peer", a.ID, "for", time.Since(h.last()).String(), "error", reason)
			return unreachable
		}
		if delay < lastLook || challenged.IsZero() {
			pause(ctx, delay)
			delay = min(2*delay, lastLook)
		} else {
			pause(ctx, time.Until(challenged.Add(patience+firstLook)))
		}
	}
	w.metrics.falseAlarms.Inc()
	return answers
}

// report tells the store that a peer can't be reached from here. It is reported
// again with every challenge for as long as that lasts.
func (w *Watcher) report(ctx context.Context, h *watch) {
	if err := w.store.Report(ctx, w.about(h, true)); err != nil && ctx.Err() == nil {
		w.log.Debug("the store could not be told about a peer", "peer", h.peer.ID, "error", err)
	}
	h.reported = true // it may have been, whatever the error
}

// takeBack takes back what was reported of a peer, also at the end of a watch. A
// report that stays, for the store can't be asked, loses its force by itself.
func (w *Watcher) takeBack(ctx context.Context, h *watch) {
	if !h.reported {
		return
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.Timeout)
	defer cancel()
	if err := w.store.Report(bounded, w.about(h, false)); err != nil {
		w.log.Debug("a report about a peer could not be taken back", "peer", h.peer.ID, "error", err)
	}
	h.reported = false
}

func (w *Watcher) about(h *watch, unreachable bool) metadata.Report {
	return metadata.Report{
		AgentID: h.peer.ID, Session: h.peer.Session,
		ReporterID: w.self.ID, Reporter: w.self.Session, Unreachable: unreachable,
	}
}

// buried takes in that a session of a peer has ended: the watch ends when the
// view does not list it any more.
func (w *Watcher) buried(ctx context.Context, h *watch, burial metadata.Burial, reason error) {
	if burial.Buried() {
		took := time.Since(h.last())
		w.metrics.burials.WithLabelValues(burial.String()).Inc()
		w.metrics.took.Observe(took.Seconds())
		w.log.Warn("a peer is dead, its leases are free", "peer", h.peer.ID, "evidence", burial.String(),
			"after", took.String(), "error", reason)
	}
	if err := w.cluster.Refresh(ctx); err != nil && ctx.Err() == nil {
		w.log.Warn("cannot refresh the view of the cluster after a death", "error", err)
	}
}

func (h *watch) last() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lastSign
}

// await waits for an answer of a peer that gave none; unreachable if there is none
// for that time.
func (h *watch) await(ctx context.Context, limit time.Duration) finding {
	select {
	case <-h.answered: // from before
	default:
	}
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case <-h.answered:
		return answers
	case <-late.C:
	case <-ctx.Done():
	}
	return unreachable
}

// forgetFailure drops a failure that the suspicion has outlived.
func (h *watch) forgetFailure() {
	select {
	case <-h.failed:
	default:
	}
}

// pause waits for the time, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
