package postgres_test

import (
	"context"
	"math/rand/v2"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/postgres"
)

// openAgent opens the store of one of the agents.
func (tt *torture) openAgent(n int, url string) {
	tt.t.Helper()
	a := metadata.Agent{ID: agentName(n), Session: uuid.New(), Host: "h", Port: 1}
	store, err := postgres.Open(tt.t.Context(), url, postgres.Options{AgentID: a.ID, Session: a.Session, AllowUnsafe: true})
	if err != nil {
		tt.t.Fatal(err)
	}
	tt.t.Cleanup(func() {
		if err := store.Close(); err != nil {
			tt.t.Error(err)
		}
	})
	tt.agents, tt.stores = append(tt.agents, a), append(tt.stores, store)
}

// attend keeps an agent attending until ctx ends: it registers again whenever it
// was buried, and answers no challenge.
func (tt *torture) attend(ctx context.Context, n int) {
	a, store := tt.agents[n], tt.stores[n]
	ignore := metadata.Signals{Present: func() {}, Challenged: func() {}}
	for ctx.Err() == nil {
		if _, err := store.Register(ctx, a); err == nil {
			_ = store.Attend(ctx, a.ID, a.Session, ignore)
		}
		tt.waitOutage()
	}
}

// bury buries an agent that lives and commits, by another: it was asked, and has
// not answered.
func (tt *torture) bury(ctx context.Context) {
	n := rand.IntN(tortureAgents)
	a, by := tt.agents[n], tt.stores[(n+1)%tortureAgents]
	if err := by.Challenge(ctx, a.ID, a.Session); err != nil {
		return // the connection was killed
	}
	burial, err := by.Bury(ctx, a.ID, a.Session, 0)
	if err != nil || !burial.Buried() {
		return
	}
	tt.burials.Add(1)
	tt.mu.Lock()
	defer tt.mu.Unlock()
	for key, l := range tt.leaders {
		if l.agent == n {
			tt.leaders[key] = leadership{} // somebody takes it before the next commit
		}
	}
}

// handOver hands a partition over, if its leader is still who it is believed to be.
func (tt *torture) handOver(ctx context.Context, key lease.Key, to int) {
	from := tt.leader(key)
	move := lease.Move{Term: from.term, To: agentName(to)}
	if move.Key != key {
		return // nobody has led it yet
	}
	given, err := tt.stores[from.agent].HandOver(ctx, agentName(from.agent), tortureLeaseLength, []lease.Move{move})
	if err == nil {
		tt.handOvers.Add(int64(len(given)))
	}
}
