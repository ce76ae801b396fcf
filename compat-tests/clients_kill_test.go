package compattests

import (
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
	seed, dir := seed(t), t.TempDir()
	names := slices.Sorted(maps.Keys(clientKinds))
	survivors := make([]*survivor, len(names))
	killed := make(chan struct{}) // closed when there is one agent less
	back := make(chan struct{})   // closed when it is back
	var begun, survived, done sync.WaitGroup
	for i, name := range names {
		run := &clientRun{target: target, seed: seed, topic: "kill-" + name}
		t.Cleanup(func() {
			if err := run.end(); err != nil {
				t.Error(err)
			}
		})
		run.start(t, clientKinds[name], dir)
		survivors[i] = &survivor{clientRun: run, killed: killed, back: back, begun: sync.OnceFunc(begun.Done), survived: sync.OnceFunc(survived.Done)}
		begun.Add(1)
		survived.Add(1)
	}
	ctx := deadline(t, 5*time.Minute)
	for _, s := range survivors {
		done.Go(func() { s.err = s.run(ctx) })
	}
	begun.Wait()
	if err := target.nodes[0].Kill(); err != nil {
		t.Error(err)
	}
	close(killed)
	survived.Wait()
	if err := target.nodes[0].Start(ctx); err != nil {
		t.Error(err)
	}
	close(back)
	done.Wait()
	for _, s := range survivors {
		t.Run(s.Name(), func(t *testing.T) {
			s.feature(t, featureKill, func(context.Context) error { return s.err })
			t.Logf("%d writes, of which %d were given up; %d polls that failed", s.rounds, s.refused, s.deaf)
		})
	}
}

// survivor is a client while an agent is killed.
type survivor struct {
	*clientRun
	killed, back    <-chan struct{}
	begun, survived func() // tell that it has written since the start, and since the kill
	acked           []scenario.Record
	rounds, refused int
	deaf            int // polls that failed
	err             error
}

func (s *survivor) run(ctx context.Context) error {
	// Whatever happens to it, the others are not held up.
	defer s.begun()
	defer s.survived()
	if err := s.CreateTopic(ctx, s.topic, scenario.TopicConfigs()); err != nil {
		return fmt.Errorf("create topic: %w", err)
	}
	m, err := s.Join(ctx, s.topic, "kill-"+s.Name())
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	returned := make(map[[2]int64]bool)
	for _, until := range []struct {
		event <-chan struct{} // to write after
		tell  func()
	}{{nil, s.begun}, {s.killed, s.survived}, {s.back, func() {}}} {
		if err := s.writeAfter(ctx, until.event, m, returned); err != nil {
			return errors.Join(err, m.Leave(ctx))
		}
		until.tell()
	}
	return errors.Join(s.check(ctx, m, returned), m.Leave(ctx))
}

// writeAfter writes and reads until a write that began after the event succeeds.
func (s *survivor) writeAfter(ctx context.Context, event <-chan struct{}, m clients.Member, returned map[[2]int64]bool) error {
	for after := event == nil; ctx.Err() == nil; {
		few := scenario.Few(s.seed, s.rounds, 3, s.Profile())
		s.rounds++
		_, err := s.Produce(ctx, s.topic, scenario.Codecs[0], few)
		if err != nil {
			s.refused++
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
