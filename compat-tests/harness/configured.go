package harness

import (
	"context"
	"testing"
)

// Configuration is what an agent is started with: its agent_id, its configuration file, and what the environment has
// over that, as STREAMHOUSE_NAME=value.
type Configuration struct {
	ID, File string
	Env      []string
}

// Configured starts agents with configuration files, all at once. They need not know of each other. Else it is like
// Cluster.
func Configured(t testing.TB, configurations []Configuration) []*Agent {
	t.Helper()
	agents := make([]*Agent, len(configurations))
	for i, c := range configurations {
		agent, err := newAgent(c.ID, t.TempDir(), c.Env, []string{"--config", c.File})
		if err != nil {
			t.Fatal(err)
		}
		agents[i] = agent
	}
	stopAfter(t, agents...)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	launch(ctx, t, agents...)
	return agents
}
