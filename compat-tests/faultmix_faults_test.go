package compattests

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/process"
	"github.com/streamhouse/streamhouse/internal/testdb"
)

// mixFault is a kind of fault. run has it befall an agent, or what all agents share, and returns when it is over.
type mixFault struct {
	run    func(context.Context, *strike)
	shared bool // it befalls no one agent
	alone  bool // no other fault goes with it
}

// strike is one fault as it happens.
type strike struct {
	*faultMix
	t      *testing.T
	victim int // an agent that no other fault befalls meanwhile; means nothing to a shared fault
	random *rand.Rand
	length time.Duration
}

func (s *strike) agent() *harness.LinkedAgent { return s.agents[s.victim] }

// mixFaults are the faults by name.
var mixFaults = map[string]mixFault{
	"kill":            {run: killAgent},
	"freeze":          {run: freezeAgent},
	"drain":           {run: drainAgent},
	"rolling restart": {run: rollAgents, shared: true, alone: true},

	"cut from postgres":          {run: link(func(a *harness.LinkedAgent) { a.Postgres.Cut() })},
	"cut from s3":                {run: link(func(a *harness.LinkedAgent) { a.S3.Cut() })},
	"cut from clients and peers": {run: link(func(a *harness.LinkedAgent) { a.Kafka.Cut() })},
	"cut from all":               {run: link(func(a *harness.LinkedAgent) { a.Kafka.Cut(); a.Postgres.Cut(); a.S3.Cut() })},
	"deaf to postgres":           {run: link(func(a *harness.LinkedAgent) { a.Postgres.CutOneWay(testdb.ToClient) })},
	"deaf to clients":            {run: link(func(a *harness.LinkedAgent) { a.Kafka.CutOneWay(testdb.ToServer) })},
	"postgres unreachable":       {run: link(func(a *harness.LinkedAgent) { a.Postgres.Reset() })},
	"s3 unreachable":             {run: link(func(a *harness.LinkedAgent) { a.S3.Reset() })},
	"unreachable":                {run: link(func(a *harness.LinkedAgent) { a.Kafka.Reset() })},
	"slow postgres":              {run: link(func(a *harness.LinkedAgent) { a.Postgres.Delay(100 * time.Millisecond) })},
	"slow s3":                    {run: link(func(a *harness.LinkedAgent) { a.S3.Delay(500 * time.Millisecond) })},
	"slow clients":               {run: link(func(a *harness.LinkedAgent) { a.Kafka.Delay(100 * time.Millisecond) })},
	"fail stored uploads":        {run: link(func(a *harness.LinkedAgent) { a.S3.FailUploads(true) })},
	"lose answers of postgres":   {run: loseAnswers},
	"reset connections":          {run: resetConnections},

	"restart postgres": {shared: true, run: func(_ context.Context, s *strike) { s.postgres.Restart() }},
	"kill postgres":    {shared: true, run: func(_ context.Context, s *strike) { s.postgres.Kill(); s.postgres.Start() }},
	"freeze postgres": {shared: true, run: func(ctx context.Context, s *strike) {
		s.postgres.Pause()
		defer s.postgres.Resume()
		pause(ctx, s.length)
	}},
	"kill s3": {shared: true, run: func(ctx context.Context, s *strike) {
		s.bucket.Kill()
		defer s.bucket.Start()
		pause(ctx, s.length)
	}},
	"freeze s3": {shared: true, run: func(ctx context.Context, s *strike) {
		s.bucket.Pause()
		defer s.bucket.Resume()
		pause(ctx, s.length)
	}},
}

// befall has faults begin within seconds of each other, and returns when all are over and all agents serve.
func (m *faultMix) befall(t *testing.T, faults []string, length time.Duration) {
	t.Helper()
	ctx := deadline(t, 5*time.Minute)
	victims := m.random.Perm(len(m.agents))
	var done sync.WaitGroup
	for i, name := range faults {
		s := &strike{faultMix: m, t: t, victim: victims[i], random: rand.New(rand.NewPCG(m.random.Uint64(), 0)), length: length}
		later := time.Duration(0)
		if i > 0 {
			later = time.Duration(s.random.Int64N(int64(length) / 2))
		}
		done.Go(func() {
			pause(ctx, later)
			m.counts.add(1, "fault: %s", name)
			if mixFaults[name].shared {
				t.Logf("%s %s, %s", stamp(), name, length.Round(time.Millisecond))
			} else {
				t.Logf("%s %s: agent %s, %s", stamp(), name, s.agent().ID(), length.Round(time.Millisecond))
			}
			mixFaults[name].run(ctx, s)
		})
	}
	done.Wait()
	for i := range m.agents {
		m.revive(ctx, t, i)
	}
}

// stamp is the time as agents log it.
func stamp() string { return time.Now().UTC().Format("15:04:05.000") }

// link is a fault of an agent's links, which heal afterwards.
func link(harm func(*harness.LinkedAgent)) func(context.Context, *strike) {
	return func(ctx context.Context, s *strike) {
		defer s.agent().Heal()
		harm(s.agent())
		pause(ctx, s.length)
	}
}

func killAgent(ctx context.Context, s *strike) {
	if err := s.agent().Kill(); err != nil {
		s.t.Error(err)
	}
	if s.random.IntN(2) == 0 {
		pause(ctx, s.length/2)
	}
	s.start(ctx, s.t, s.victim)
}

func freezeAgent(ctx context.Context, s *strike) {
	pid := s.agent().PID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		s.t.Error(err)
	}
	pause(ctx, s.length)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		s.t.Error(err)
	}
}

func drainAgent(ctx context.Context, s *strike) { s.restart(ctx, s.victim) }

func rollAgents(ctx context.Context, s *strike) {
	for i := range s.agents {
		s.restart(ctx, i)
	}
}

// restart ends an agent with SIGTERM and starts it again. An agent whose stores are away meanwhile says that its drain
// failed.
func (s *strike) restart(ctx context.Context, agent int) {
	if err := s.agents[agent].Stop(ctx); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			s.t.Error(err)
		}
		s.counts.add(1, "drains that failed")
	}
	s.start(ctx, s.t, agent)
}

func loseAnswers(ctx context.Context, s *strike) {
	over := time.NewTimer(s.length)
	defer over.Stop()
	for {
		select {
		case <-s.agent().Postgres.LoseAnswer():
			s.counts.add(1, "answers of postgres that were lost")
		case <-over.C:
			return
		case <-ctx.Done():
			return
		}
		pause(ctx, time.Duration(s.random.IntN(200))*time.Millisecond)
	}
}

// resetAll resets all connections of an agent, time and again.
func resetConnections(ctx context.Context, s *strike) {
	defer s.agent().Heal()
	for range 1 + s.random.IntN(5) {
		a := s.agent()
		for _, l := range []harness.Link{a.Kafka, a.Postgres.Link, a.S3.Link} {
			l.Reset()
			l.Heal()
		}
		pause(ctx, s.length/5)
	}
}

// start starts an agent that has ended. While a store is away, an agent that starts ends by itself.
func (m *faultMix) start(ctx context.Context, t *testing.T, agent int) {
	m.lives[agent].Add(1)
	for {
		err := m.agents[agent].Start(ctx)
		if err == nil {
			return
		}
		if !errors.Is(err, process.ErrExited) || ctx.Err() != nil {
			t.Errorf("start agent %s: %v", m.agents[agent].ID(), err)
			return
		}
		m.counts.add(1, "starts that failed")
		pause(ctx, time.Second)
	}
}

// revive starts an agent that has ended by itself, which none should.
func (m *faultMix) revive(ctx context.Context, t *testing.T, agent int) {
	t.Helper()
	if err := m.agents[agent].Exited(); err != nil {
		t.Errorf("%s agent %s ended by itself: %v", stamp(), m.agents[agent].ID(), err)
		m.start(ctx, t, agent)
	}
}

// counts counts what happened, by what it was. It is safe for concurrent use.
type counts struct {
	mu sync.Mutex
	of map[string]int
}

func (c *counts) add(n int, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = make(map[string]int)
	}
	what, _, _ := strings.Cut(fmt.Sprintf(format, args...), "\n")
	c.of[what] += n
}

func (c *counts) log(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(c.of)) {
		t.Logf("%s: %d", what, c.of[what])
	}
}
