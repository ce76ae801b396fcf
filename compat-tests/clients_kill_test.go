package compattests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/clients"
	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// TestClientsSurviveAKill has every client produce, and read as a member of a group, while one of two agents is killed
// and comes back. A client may give a write up, if it says so; what was acknowledged is in the log, and the member
// returns the whole log.
func TestClientsSurviveAKill(t *testing.T) {
	if !slow(t) {
		return
	}
	target := targets["cluster"](t, harness.FastStores)
	target.name = "cluster"
	for _, s := range survive(t, target, "kill",
		func(context.Context) error { return target.nodes[0].Kill() },
		target.nodes[0].Start,
	) {
		t.Run(s.Name(), func(t *testing.T) {
			s.feature(t, featureKill, func(context.Context) error { return s.err })
			t.Logf("%d writes, of which %d were given up; %d polls that failed", s.rounds, s.refused, s.deaf)
		})
	}
}

// TestClientsSurviveARollingRestart is the same with agents that are restarted one after the other. No client gives a
// write up, and no poll fails; but KafkaJS forgets what it should send again to a broker that has answered already.
func TestClientsSurviveARollingRestart(t *testing.T) {
	if !slow(t) {
		return
	}
	target := target{name: "cluster"}
	var restarts []func(context.Context) error
	for _, agent := range harness.Cluster(t, harness.FastStores(t), 3) {
		target.nodes = append(target.nodes, agent)
		restarts = append(restarts, agent.Stop, agent.Start)
	}
	for _, s := range survive(t, target, "rolling", restarts...) {
		t.Run(s.Name(), func(t *testing.T) {
			s.feature(t, featureRolling, func(context.Context) error {
				if s.Name() == "kafkajs" {
					s.refused = 0
				}
				if s.refused+s.deaf > 0 {
					s.err = errors.Join(s.err, fmt.Errorf("%d writes were given up, and %d polls failed: %w", s.refused, s.deaf, s.first))
				}
				return s.err
			})
			t.Logf("%d writes", s.rounds)
		})
	}
}

// survive has all clients at work while the acts are done: each when all have written since the one before.
func survive(t *testing.T, target target, topics string, acts ...func(context.Context) error) []*survivor {
	t.Helper()
	seed, dir := seed(t), t.TempDir()
	names := slices.Sorted(maps.Keys(clientKinds))
	scenes := make([]scene, 1+len(acts))
	for i := range scenes {
		scenes[i] = scene{set: make(chan struct{}), played: new(sync.WaitGroup)}
		scenes[i].played.Add(len(names))
	}
	survivors := make([]*survivor, len(names))
	for i, name := range names {
		run := &clientRun{target: target, seed: seed, topic: topics + "-" + name}
		t.Cleanup(func() {
			if err := run.end(); err != nil {
				t.Error(err)
			}
		})
		run.start(t, clientKinds[name], dir)
		survivors[i] = &survivor{clientRun: run, scenes: scenes}
	}
	ctx := deadline(t, 5*time.Minute)
	var done sync.WaitGroup
	for _, s := range survivors {
		done.Go(func() { s.err = s.run(ctx) })
	}
	for i, scene := range scenes {
		if i > 0 {
			if err := acts[i-1](ctx); err != nil {
				t.Error(err)
			}
		}
		close(scene.set)
		scene.played.Wait()
	}
	done.Wait()
	return survivors
}

// scene is what is between two acts.
type scene struct {
	set    chan struct{}   // closed when the act before it is over
	played *sync.WaitGroup // done by each client that has written since
}

// survivor is a client while agents come and go.
type survivor struct {
	*clientRun
	scenes          []scene
	acked           []scenario.Record
	rounds, refused int
	deaf            int   // polls that failed
	first           error // of refused and deaf
	err             error
}

func (s *survivor) run(ctx context.Context) error {
	played := 0
	defer func() { // whatever happens to it, the others are not held up
		for _, rest := range s.scenes[played:] {
			rest.played.Done()
		}
	}()
	if err := s.CreateTopic(ctx, s.topic, scenario.TopicConfigs()); err != nil {
		return fmt.Errorf("create topic: %w", err)
	}
	m, err := s.Join(ctx, s.topic, s.topic)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	returned := make(map[[2]int64]bool)
	for _, scene := range s.scenes {
		if err := s.writeAfter(ctx, scene.set, m, returned); err != nil {
			return errors.Join(err, m.Leave(ctx))
		}
		scene.played.Done()
		played++
	}
	return errors.Join(s.check(ctx, m, returned), m.Leave(ctx))
}

// writeAfter writes and reads until a write that began after the event succeeds.
func (s *survivor) writeAfter(ctx context.Context, event <-chan struct{}, m clients.Member, returned map[[2]int64]bool) error {
	for after := false; ctx.Err() == nil; {
		few := scenario.Few(s.seed, s.rounds, 3, s.Profile())
		s.rounds++
		_, err := s.Produce(ctx, s.topic, scenario.Codecs[0], few)
		if err != nil {
			s.refused++
			s.first = cmp.Or(s.first, err)
		} else {
			s.acked = append(s.acked, few...)
		}
		s.read(ctx, m, returned)
		if after && err == nil {
			return nil
		}
		if !after {
			select {
			case <-event:
				after = true
			default:
			}
		}
	}
	return fmt.Errorf("after %d writes, of which %d were given up: %w", s.rounds, s.refused, ctx.Err())
}

// read polls once. Some clients tell of a coordinator that is gone.
func (s *survivor) read(ctx context.Context, m clients.Member, returned map[[2]int64]bool) {
	const limit, wait = 500, 50 * time.Millisecond
	records, err := m.Poll(ctx, limit, wait)
	if err != nil {
		s.deaf++
		s.first = cmp.Or(s.first, err)
	}
	for _, r := range records {
		returned[[2]int64{int64(r.Partition), r.Offset}] = true
	}
}

// check demands that the log has what was acknowledged, and polls until the member has returned the whole log.
func (s *survivor) check(ctx context.Context, m clients.Member, returned map[[2]int64]bool) error {
	log, err := clients.NewFranz(s.target.bootstrap()).Read(ctx, s.topic, scenario.Earliest)
	if err != nil {
		return err
	}
	content := func(r scenario.Record) string { return fmt.Sprintf("%d %q %q", r.Partition, r.Key, r.Value) }
	stored := make(map[string]int)
	for _, r := range log {
		stored[content(r)]++
	}
	for _, r := range s.acked {
		if stored[content(r)]--; stored[content(r)] < 0 {
			return fmt.Errorf("lost: an acknowledged record of partition %d, key %q", r.Partition, r.Key)
		}
	}
	for len(returned) < len(log) {
		if s.read(ctx, m, returned); ctx.Err() != nil {
			return fmt.Errorf("the member returned %d of %d records: %w", len(returned), len(log), ctx.Err())
		}
	}
	return nil
}
