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
	nodeID  int32 // this agent's
	store   Store
	cluster Cluster
	metrics *Metrics
	log     *slog.Logger
	news    news
}

// New makes a watcher for the agent of that node id.
func New(cfg Config, nodeID int32, store Store, cluster Cluster, m *Metrics, log *slog.Logger) *Watcher {
	return &Watcher{cfg: cfg, nodeID: nodeID, store: store, cluster: cluster, metrics: m, log: log}
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
	tick := time.NewTicker(w.cfg.Interval)
	defer tick.Stop()
	for {
		mine := make(map[life]bool)
		for _, a := range watched(w.nodeID, w.cluster.Agents()) {
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

	failed chan error // has the reason of the last failed probe, until it is taken
}

// watch watches a peer until ctx ends.
func (w *Watcher) watch(ctx context.Context, peer metadata.Agent) {
	h := &watch{peer: peer, lastSign: time.Now(), failed: make(chan error, 1)}
	var probing sync.WaitGroup
	defer probing.Wait()
	probing.Go(func() { w.keepProbing(ctx, h) })
	for alarms := 0; ; {
		select {
		case <-ctx.Done():
			return
		case reason := <-h.failed:
			switch w.suspect(ctx, h, reason) {
			case answers:
				alarms = 0
			case ended: // and so does the watch, when the view is a new one
				pause(ctx, calm)
			case unreachable: // which may last
				pause(ctx, min(calm<<alarms, maxCalm))
				alarms = min(alarms+1, maxAlarms)
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

// suspect finds out what became of a peer that did not answer. What it returns
// when ctx ends means nothing.
func (w *Watcher) suspect(ctx context.Context, h *watch, reason error) finding {
	defer w.news.expect(h.peer.Session, w.cfg.Patience+verdictTime)()
	a, since := h.peer, time.Now()
	w.log.Debug("a peer does not answer", "peer", a.ID, "error", reason)
	if errors.Is(reason, kerr.RebootstrapRequired) {
		pause(ctx, settle) // it has lost the store, as others may have
	}
	var challenged time.Time // zero: not yet
	for delay := firstLook; !h.last().After(since); {
		burial, err := w.store.Bury(ctx, a.ID, a.Session, w.cfg.Patience)
		switch {
		case ctx.Err() != nil:
			return ended
		case err != nil:
			w.log.Debug("the store could not be asked about a peer", "peer", a.ID, "error", err)
			pause(ctx, settle)
			continue
		case burial == metadata.EndedBefore || burial.Buried():
			w.buried(ctx, h, burial, reason)
			return ended
		case challenged.IsZero() && delay > firstLook:
			if err := w.store.Challenge(ctx, a.ID, a.Session); err == nil {
				challenged = time.Now()
				w.metrics.challenges.Inc()
			}
		case !challenged.IsZero() && time.Since(challenged) > w.cfg.Patience:
			w.metrics.falseAlarms.Inc()
			w.log.Warn("a peer lives and can not be reached from here", "peer", a.ID, "for", time.Since(h.last()).String(), "error", reason)
			return unreachable
		}
		if delay < lastLook || challenged.IsZero() {
			pause(ctx, delay)
			delay = min(2*delay, lastLook)
		} else {
			pause(ctx, time.Until(challenged.Add(w.cfg.Patience+firstLook)))
		}
	}
	w.metrics.falseAlarms.Inc()
	return answers
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
