package group

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// fakeStore is the leases and groups of a cluster, in memory. Its fence is the
// true one: groups change only under the leadership of their shard.
type fakeStore struct {
	mu      sync.Mutex
	leases  map[lease.Key]*leaseRow
	groups  map[string]storedRow
	offsets map[string]map[lease.Key]offsetRow
	trace   []string // the statements about groups

	// fault, if set, is asked before a statement about groups is made. It may
	// block.
	fault func(ctx context.Context, op string) fault
}

// fault is what goes wrong with a statement.
type fault struct {
	err     error // what the caller is told
	applied bool  // whether the statement is made all the same
}

type storedRow struct {
	record string
	at     time.Time
}

type offsetRow struct {
	metadata.CommittedOffset
	at time.Time
}

type leaseRow struct {
	agent string
	term  lease.Term
	ends  time.Time
}

func newFakeStore() *fakeStore {
	return &fakeStore{
		leases:  make(map[lease.Key]*leaseRow),
		groups:  make(map[string]storedRow),
		offsets: make(map[string]map[lease.Key]offsetRow),
	}
}

func (f *fakeStore) Acquire(_ context.Context, agent string, ttl time.Duration, keys []lease.Key) ([]lease.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	results := make([]lease.Result, len(keys))
	for i, k := range keys {
		row := f.leases[k]
		if row == nil {
			row = &leaseRow{term: lease.Term{Key: k}}
			f.leases[k] = row
		}
		if row.agent != agent && time.Now().Before(row.ends) {
			results[i].Err = &lease.HeldByOtherError{Key: k, Holder: lease.Holder{AgentID: row.agent, ExpiresIn: time.Until(row.ends)}}
			continue
		}
		row.agent, row.ends = agent, time.Now().Add(ttl)
		row.term.Epoch++
		row.term.LeaderEpoch++
		results[i].Term = row.term
	}
	return results, nil
}

func (f *fakeStore) Renew(_ context.Context, agent string, ttl time.Duration, terms []lease.Term) ([]lease.Term, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var renewed []lease.Term
	for _, t := range terms {
		if row := f.leases[t.Key]; row != nil && row.agent == agent && row.term.LeaderEpoch == t.LeaderEpoch {
			row.term.Epoch++
			row.ends = time.Now().Add(ttl)
			renewed = append(renewed, row.term)
		}
	}
	return renewed, nil
}

func (f *fakeStore) HandOver(_ context.Context, agent string, ttl time.Duration, moves []lease.Move) ([]lease.Term, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var given []lease.Term
	for _, m := range moves {
		if row := f.leases[m.Key]; row != nil && row.agent == agent && row.term.LeaderEpoch == m.LeaderEpoch {
			row.agent, row.ends = m.To, time.Now().Add(ttl)
			row.term.Epoch++
			row.term.LeaderEpoch++
			given = append(given, row.term)
		}
	}
	return given, nil
}

func (f *fakeStore) Release(_ context.Context, agent string, terms []lease.Term) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range terms {
		if row := f.leases[t.Key]; row != nil && row.agent == agent && row.term.LeaderEpoch == t.LeaderEpoch {
			row.agent, row.ends = "", time.Time{}
		}
	}
	return nil
}

// takeOver gives a shard that was led to another agent, as if the first seemed dead.
func (f *fakeStore) takeOver(k lease.Key, agent string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	row := f.leases[k]
	if row == nil {
		return
	}
	row.agent, row.ends = agent, time.Now().Add(30*time.Second)
	row.term.Epoch++
	row.term.LeaderEpoch++
}

// statement makes a statement about groups, with its faults.
func (f *fakeStore) statement(ctx context.Context, op, what string, do func() error) error {
	f.mu.Lock()
	f.trace = append(f.trace, what)
	ask := f.fault
	f.mu.Unlock()
	var ft fault
	if ask != nil {
		ft = ask(ctx, op)
	}
	if ft.err == nil || ft.applied {
		f.mu.Lock()
		defer f.mu.Unlock()
		if err := do(); err != nil && ft.err == nil {
			return err
		}
	}
	return ft.err
}

func (f *fakeStore) fence(agent string, t lease.Term) error {
	row := f.leases[t.Key]
	if row == nil || row.agent != agent || row.term.LeaderEpoch != t.LeaderEpoch {
		return metadata.ErrFenced
	}
	return nil
}

// described is a write in a trace.
func described(w *metadata.GroupWrite) string {
	var parts []string
	for _, p := range []struct {
		what string
		n    int
	}{{"delete", len(w.Delete)}, {"forget", len(w.DeleteOffsets)}, {"commit", len(w.Commit)}, {"save", len(w.Save)}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", p.what, p.n))
		}
	}
	return strings.Join(parts, ", ")
}

func (f *fakeStore) WriteGroups(ctx context.Context, agent string, t lease.Term, w *metadata.GroupWrite) error {
	return f.statement(ctx, "write", described(w), func() error {
		if err := f.fence(agent, t); err != nil {
			return err
		}
		for _, g := range w.Delete {
			delete(f.groups, g)
			delete(f.offsets, g)
		}
		for _, d := range w.DeleteOffsets {
			for _, k := range d.Keys {
				delete(f.offsets[d.Group], k)
			}
		}
		for _, c := range w.Commit {
			if f.offsets[c.Group] == nil {
				f.offsets[c.Group] = make(map[lease.Key]offsetRow)
			}
			for _, o := range c.Offsets {
				f.offsets[c.Group][o.Key] = offsetRow{o, time.Now()}
			}
		}
		for _, r := range w.Save {
			f.groups[r.Group] = storedRow{r.Record, time.Now()}
		}
		return nil
	})
}

func (f *fakeStore) LoadGroups(ctx context.Context, shard lease.Key) (groups []metadata.StoredGroup, err error) {
	err = f.statement(ctx, "load", "load", func() error {
		for _, id := range slices.Sorted(maps.Keys(f.groups)) {
			if row := f.groups[id]; metadata.GroupShard(metadata.DefaultAgentGroup, id) == shard {
				groups = append(groups, metadata.StoredGroup{
					GroupRecord: metadata.GroupRecord{Group: id, Record: row.record}, Age: time.Since(row.at),
				})
			}
		}
		return nil
	})
	return groups, err
}

func (f *fakeStore) FetchOffsets(ctx context.Context, groups []string) (all [][]metadata.CommittedOffset, err error) {
	err = f.statement(ctx, "fetch", fmt.Sprintf("fetch %d", len(groups)), func() error {
		for _, g := range groups {
			var of []metadata.CommittedOffset
			for _, row := range f.offsets[g] {
				of = append(of, row.CommittedOffset)
			}
			slices.SortFunc(of, func(a, b metadata.CommittedOffset) int { return a.Compare(b.Key) })
			all = append(all, of)
		}
		return nil
	})
	return all, err
}

// OldOffsets takes the topic of each partition for "t".
func (f *fakeStore) OldOffsets(ctx context.Context, groups []string, age time.Duration) (all []metadata.OldOffsets, err error) {
	err = f.statement(ctx, "old", fmt.Sprintf("old %d", len(groups)), func() error {
		for _, g := range groups {
			old := metadata.OldOffsets{Total: len(f.offsets[g])}
			for k, row := range f.offsets[g] {
				if time.Since(row.at) >= age {
					old.Old = append(old.Old, metadata.OldOffset{Key: k, Topic: "t"})
				}
			}
			all = append(all, old)
		}
		return nil
	})
	return all, err
}

// statements returns the statements made since the last call.
func (f *fakeStore) statements() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	trace := f.trace
	f.trace = nil
	return trace
}

func (f *fakeStore) setFault(ask func(ctx context.Context, op string) fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = ask
}

// agent is a coordinator with its leases, running until the test ends.
type agent struct {
	*Coordinator
	manager *lease.Manager
	reg     *prometheus.Registry
	end     func() // ends the coordinator; may be called again
}

// startAgent starts an agent in a synctest bubble.
func startAgent(t *testing.T, f *fakeStore, id string, change func(*Config)) *agent {
	t.Helper()
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	a := &agent{reg: prometheus.NewRegistry()}
	a.manager = lease.NewManager(f, id, lease.DefaultConfig(), lease.NewMetrics(prometheus.NewRegistry()), log)
	a.Coordinator = NewCoordinator(f, a.manager, noTopics, id, cfg, NewMetrics(a.reg), log)
	leasesCtx, endLeases := context.WithCancel(t.Context())
	ctx, end := context.WithCancel(t.Context())
	var leases, groups sync.WaitGroup
	leases.Go(func() { noError(t, a.manager.Run(leasesCtx)) })
	groups.Go(func() { noError(t, a.Run(ctx)) })
	a.end = func() {
		end()
		groups.Wait()
	}
	t.Cleanup(func() {
		a.end()
		endLeases()
		leases.Wait()
		noError(t, a.manager.ReleaseAll(context.Background()))
	})
	return a
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// wait returns the answer to a request that must succeed.
func wait[T any](t *testing.T, p Pending[T]) T {
	t.Helper()
	answer, err := p.Wait(t.Context())
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	return answer
}

// refusal waits for a request that must fail with the error.
func refusal[T any](t *testing.T, p Pending[T], want error) {
	t.Helper()
	if _, err := p.Wait(t.Context()); !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// undecided says whether a request waits.
func undecided[T any](p Pending[T]) bool {
	select {
	case <-p.call.done:
		return false
	default:
		return true
	}
}

// consumer joins a group as its only member, and leads it.
func consumer(t *testing.T, a *agent, group string) Membership {
	t.Helper()
	j := wait(t, a.Join(joinRequest(group, "")))
	m := Membership{Group: group, MemberID: j.MemberID, Generation: j.Generation}
	wait(t, a.Sync(SyncRequest{Membership: m, Assignments: []Assignment{{j.MemberID, []byte("all")}}}))
	return m
}

func joinRequest(group, member string) JoinRequest {
	return JoinRequest{
		Group: group, MemberID: member, ClientID: "client", ProtocolType: consumerProtocol,
		Protocols:      []Protocol{{Name: "range"}},
		SessionTimeout: 10 * time.Second, RebalanceTimeout: 30 * time.Second,
	}
}

func commitRequest(m Membership, offsets ...int64) CommitRequest {
	r := CommitRequest{Membership: m}
	for p, o := range offsets {
		r.Offsets = append(r.Offsets, metadata.CommittedOffset{Key: lease.Key{Partition: int32(p)}, Offset: o, LeaderEpoch: -1})
	}
	return r
}

// simple is a consumer that manages its partitions itself.
func simple(group string) Membership { return Membership{Group: group, Generation: -1} }

// sameShard returns n groups of one shard.
func sameShard(n int) []string {
	var groups []string
	for i := 0; len(groups) < n; i++ {
		if g := fmt.Sprintf("group-%d", i); metadata.GroupShard(metadata.DefaultAgentGroup, g) == metadata.GroupShardKey(metadata.DefaultAgentGroup, 0) {
			groups = append(groups, g)
		}
	}
	slices.SortFunc(groups, cmp.Compare[string])
	return groups
}
