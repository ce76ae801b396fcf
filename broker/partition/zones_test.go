package partition_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/broker/ingest/ingesttest"
	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/metadatatest"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/objstoretest"
)

// zones makes each agent of a world one of a zone of its own: it takes appends for
// all others, and has them commit. Calls between agents go wrong as commits do, and
// may arrive when nobody waits for them any more.
type zones struct {
	calls *ingesttest.Commits
	names ingestNames

	mu     sync.Mutex
	tables map[string]*partition.Table // of those who live, and of the dead, who refuse
	twice  bool                        // calls arrive twice at once

	// fault, if there is one, is all that goes wrong between agents.
	fault func(step time.Duration) ingesttest.Fault
	// tamper replaces how an agent asks the others, and the store, by something wrong.
	tamperCalls func(metadata.Committer) metadata.Committer
	tamperNames func(metadata.Objects) metadata.Objects
}

func newZones(b backend) *zones {
	z := &zones{tables: make(map[string]*partition.Table), names: ingestNames{inner: b}}
	z.calls = ingesttest.NewCommits(z)
	return z
}

// Commit is the network: it finds the agent that a commit names.
func (z *zones) Commit(ctx context.Context, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	z.mu.Lock()
	table, twice := z.tables[c.AgentID], z.twice
	z.mu.Unlock()
	if table == nil {
		return nil, metadata.ErrUnavailable
	}
	var other sync.WaitGroup
	if twice {
		other.Go(func() { table.Commit(ctx, c) })
		defer other.Wait()
	}
	return table.Commit(ctx, c)
}

// join configures an agent.
func (z *zones) join(w *world, _ int, cfg *nodeConfig) {
	cfg.remote, cfg.names = z.calls, &z.names
	if z.tamperCalls != nil {
		cfg.remote = z.tamperCalls(cfg.remote)
	}
	if z.tamperNames != nil {
		cfg.names = z.tamperNames(cfg.names)
	}
	cfg.partition.Borrow = func(*lease.HeldByOtherError) bool { return w.intN(8) > 0 }
}

func (z *zones) joined(id string, n *node) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.tables[id] = n.table
}

// disturb harms what agents have to do with one another until ctx ends, about every
// step.
func (z *zones) disturb(ctx context.Context, w *world, step time.Duration) {
	slow := ingesttest.Fault{Delay: step / 10}
	for {
		if z.fault != nil {
			z.calls.Set(z.fault(step), slow)
		} else {
			z.harm(ctx, w, step, slow)
		}
		z.mu.Lock()
		z.twice = !z.twice
		z.mu.Unlock()
		select {
		case <-ctx.Done():
			z.calls.Set()
			z.names.heal()
			return
		case <-time.After(step/2 + time.Duration(w.intN(int(step)))):
		}
	}
}

func (z *zones) harm(ctx context.Context, w *world, step time.Duration, slow ingesttest.Fault) {
	switch calls := z.calls.Set; w.intN(10) {
	case 0:
		calls(ingesttest.Fault{Before: metadata.ErrUnavailable})
	case 1:
		calls(ingesttest.Fault{Nth: 1, Before: metadata.ErrUnknownOutcome}, ingesttest.Fault{Nth: 2, After: metadata.ErrUnknownOutcome}, slow)
	case 2:
		calls(ingesttest.Fault{After: metadata.ErrUnknownOutcome})
	case 3:
		calls(ingesttest.Fault{Delay: 3 * step})
	case 4:
		calls(ingesttest.Fault{Delay: 8 * step, Late: true})
	case 5:
		calls(ingesttest.Fault{Nth: 1, Delay: 8 * step, Late: true}, ingesttest.Fault{Nth: 2, Before: metadata.ErrUnavailable}, slow)
	case 6:
		z.names.fail(w.intN(2) == 0)
	case 7:
		w.node(w.intN(agents)).leases.EndBorrowed(func(*lease.Lease) bool { return w.intN(2) == 0 })
	case 8:
		z.handOver(ctx, w, step)
	default:
		calls(slow)
		z.names.heal()
	}
}

// handOver has an agent hand over all that it leads, to any agent.
func (z *zones) handOver(ctx context.Context, w *world, step time.Duration) {
	from := w.node(w.intN(agents))
	to := fmt.Sprintf("agent-%d", w.intN(agents))
	bounded, cancel := context.WithTimeout(ctx, 3*step)
	defer cancel()
	from.table.HandOver(bounded, lease.ForBalance, from.leases.Leases(), func(lease.Key) (string, bool) { return to, true })
}

// scatter writes batches of no producer, each once: one that failed must not be in
// the log, however late, and one that was acknowledged must be there once.
func (z *zones) scatter(w *world, pause time.Duration) {
	for range 60 {
		k := key(int32(w.intN(partitions)))
		a := partition.Append{Key: k, Batch: ingesttest.Batch(w.t, fmt.Sprintf("%s number %d", k, w.next()), ingesttest.NoProducer, 0, 0, 1)}
		ctx, cancel := context.WithTimeout(context.Background(), 10*pause)
		w.record(a, w.node(w.intN(agents)).table.Append([]partition.Append{a}).Wait(ctx)[0])
		cancel()
		<-time.After(pause / 4)
	}
}

// next is a number that nobody has.
func (w *world) next() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.numbers++
	return w.numbers
}

// ingestNames claims names, and fails on purpose.
type ingestNames struct {
	inner metadata.Objects
	mu    sync.Mutex
	// failing fails claims, applied those that were made.
	failing, applied bool
}

func (n *ingestNames) fail(applied bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.failing, n.applied = true, applied
}

func (n *ingestNames) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.failing = false
}

func (n *ingestNames) ClaimOrphans(ctx context.Context, ids []segment.ID) (claimed []segment.ID, err error) {
	n.mu.Lock()
	failing, applied := n.failing, n.applied
	n.mu.Unlock()
	if !failing || applied {
		claimed, err = n.inner.ClaimOrphans(ctx, ids)
	}
	if failing {
		return nil, metadata.ErrUnknownOutcome
	}
	return claimed, err
}

func zoned(unit time.Duration) nodeConfig {
	cfg := hurried(unit)
	cfg.ingest.RemoteTimeout = 3 * unit
	return cfg
}

func TestZonesInMemory(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := ingesttest.NewStore()
				w := newWorld(t, seed, 15, store, objstoretest.NewMemory(), zoned(10*time.Millisecond))
				w.zones = newZones(store)
				w.run(1, 10*time.Millisecond)
				w.zones.report(w)
			})
		})
	}
}

func (z *zones) report(w *world) {
	parts, agents := 0, make(map[string]bool)
	for _, c := range z.calls.Sent() {
		parts += len(c.Objects)
		agents[c.AgentID] = true
	}
	w.t.Logf("%d calls to %d agents, of %d parts", len(z.calls.Sent()), len(agents), parts)
	if parts == 0 {
		w.t.Error("nobody had another agent commit")
	}
}

// verdict keeps complaints instead of failing a test.
type verdict struct {
	testing.TB
	mu         sync.Mutex
	complaints []string
}

func (v *verdict) Errorf(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.complaints = append(v.complaints, fmt.Sprintf(format, args...))
}

func (v *verdict) Error(args ...any) { v.Errorf("%s", fmt.Sprint(args...)) }

// guess takes what it does not know of for not committed.
type guess struct{}

func (guess) ClaimOrphans(_ context.Context, ids []segment.ID) ([]segment.ID, error) { return ids, nil }

// rename asks again under new names.
type rename struct{ metadata.Committer }

func (r rename) Commit(ctx context.Context, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	results, err := r.Committer.Commit(ctx, c)
	if err == nil || errors.Is(err, metadata.ErrUnavailable) {
		return results, err
	}
	again := metadata.Commit{AgentID: c.AgentID}
	for _, o := range c.Objects {
		o.ID = segment.Part(o.ID, segment.MaxParts-1)
		again.Objects = append(again.Objects, o)
	}
	return r.Committer.Commit(ctx, &again)
}

// A world that has never complained proves nothing.
func TestZonesCatchMistakes(t *testing.T) {
	for name, tamper := range map[string]func(z *zones){
		"outcomes are guessed": func(z *zones) {
			z.fault = func(step time.Duration) ingesttest.Fault {
				return ingesttest.Fault{Nth: 1, Delay: 8 * step, Late: true}
			}
			z.tamperNames = func(metadata.Objects) metadata.Objects { return guess{} }
		},
		"retries have new names": func(z *zones) {
			z.fault = func(time.Duration) ingesttest.Fault {
				return ingesttest.Fault{Nth: 1, After: metadata.ErrUnknownOutcome}
			}
			z.tamperCalls = func(c metadata.Committer) metadata.Committer { return rename{c} }
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(50) {
				v := &verdict{}
				synctest.Test(t, func(t *testing.T) {
					v.TB = t
					store := ingesttest.NewStore()
					w := newWorld(v, seed, 5, store, objstoretest.NewMemory(), zoned(10*time.Millisecond))
					w.zones = newZones(store)
					tamper(w.zones)
					w.run(1, 10*time.Millisecond)
				})
				if len(v.complaints) > 0 {
					t.Logf("in world %d: %s", seed, v.complaints[0])
					return
				}
			}
			t.Error("nobody noticed")
		})
	}
}

func TestZonesOnSQLiteAndDirectory(t *testing.T) { onSQLiteAndDirectory(t, testZonesOn) }

func TestZonesOnPostgres(t *testing.T) { onPostgres(t, testZonesOn) }

// testZonesOn is testAgentsOn for agents that commit for one another.
func testZonesOn(t *testing.T, store metadata.Store, objects objstore.Store) {
	first := prepare(t, store)
	w := newWorld(t, 1, 6, store, objects, zoned(20*time.Millisecond))
	w.zones = newZones(store)
	w.run(first, 20*time.Millisecond)
	w.zones.report(w)
	if err := metadatatest.Audit(t.Context(), store); err != nil {
		t.Error(err)
	}
}
