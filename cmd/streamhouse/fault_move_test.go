package main

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

// fleet are agents on shared stores that come and go under load.
type fleet struct {
	flow
	stores stores
	change func(*Settings)

	mu     sync.Mutex
	agents []*isolated
	born   int
}

// join starts one more agent.
func (f *fleet) join() *isolated {
	f.t.Helper()
	f.born++
	a := startIsolated(f.t, f.stores, named(fmt.Sprint("agent-", f.born)), f.change)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.agents = append(f.agents, a)
	return a
}

// leave takes the oldest agent out of what the loaders know.
func (f *fleet) leave() *isolated {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.agents[0]
	f.agents = f.agents[1:]
	return a
}

// addresses are those of the agents that are there.
func (f *fleet) addresses() (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.agents {
		all = append(all, a.addr)
	}
	return all
}

// Partitions move from agent to agent under load, and whatever makes them move,
// nothing that was acknowledged is lost, twice, or elsewhere.
func TestPartitionsMoveUnderLoad(t *testing.T) {
	for _, test := range []struct {
		name string
		move func(*fleet)
	}{
		{"agents are killed", func(f *fleet) {
			for range 3 {
				f.join()
				f.leave().kill()
				f.progress()
			}
		}},
		{"agents are stopped", func(f *fleet) {
			for range 3 {
				f.join()
				f.leave().end()
				f.progress()
			}
		}},
		{"an agent is cut off from the database and comes back", func(f *fleet) {
			for range 3 {
				f.mu.Lock()
				a := f.agents[0]
				f.agents = append(f.agents[1:], a) // the next time, the other one
				f.mu.Unlock()
				a.database.Refuse(true)
				a.database.CloseAll()
				f.progress()
				a.database.Refuse(false)
			}
		}},
		{"an agent's commits are held back until it has lost its leases", func(f *fleet) {
			for range 3 {
				f.mu.Lock()
				a := f.agents[0]
				f.agents = append(f.agents[1:], a)
				f.mu.Unlock()
				a.database.Pause(testdb.ToServer)
				f.progress()
				a.database.Resume(testdb.ToServer)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := &fleet{stores: sharedStores(t), change: func(s *Settings) {
				impatient(s)
				s.LeaseDuration, s.HeartbeatInterval = 2*time.Second, 500*time.Millisecond
				s.TopologyInterval, s.ShutdownTimeout = 500*time.Millisecond, time.Second
			}}
			f.t = t
			first, second := f.join(), f.join()
			tp := makeShared(dial(t, first.addr), dial(t, second.addr), "moves", 2)
			f.begin(t, tp, f.addresses)
			f.progress()
			test.move(f)
			f.progress()
			f.drain(t, tp, startAgent(t, f.stores, named("reader")))
		})
	}
}
