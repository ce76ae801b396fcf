package harness

import (
	"fmt"
	"testing"
)

// LinkedAgent is an agent that is reached, and reaches its stores, over links of its own.
type LinkedAgent struct {
	*Agent
	// Kafka is in front of its listener: for clients, and for other agents. Where the agent asks others, it takes their
	// links.
	Kafka    Link
	Postgres DatabaseLink
	S3       BucketLink
}

// Address is host:port of the link to the Kafka listener, which the agent advertises.
func (a *LinkedAgent) Address() string { return a.Kafka.Address() }

// Heal ends the faults of all its links.
func (a *LinkedAgent) Heal() {
	a.Kafka.Heal()
	a.Postgres.Heal()
	a.S3.Heal()
}

// LinkedCluster is Cluster with links. They are healed before the agents are stopped.
func LinkedCluster(t testing.TB, stores Stores, n int, env ...string) []*LinkedAgent {
	t.Helper()
	var linked []*LinkedAgent
	var agents []*Agent
	for i := range n {
		agent, err := newAgent(fmt.Sprintf("a%d", i+1), t.TempDir(), env, nil)
		if err != nil {
			t.Fatal(err)
		}
		a := &LinkedAgent{
			Agent:    agent,
			Kafka:    newLink(t, agent.address),
			Postgres: DatabaseLink{newLink(t, stores.Metadata)},
			S3:       newBucketLink(t, stores.Objects),
		}
		agent.flags = []string{
			"--advertised-address", a.Kafka.Address(),
			"--metadata-url", a.Postgres.proxy.URL(), "--object-url", a.S3.proxy.URL(),
		}
		stopAfter(t, agent) // and not what was made before, which it needs
		linked, agents = append(linked, a), append(agents, agent)
	}
	t.Cleanup(func() {
		for _, a := range linked {
			a.Heal()
		}
	})
	start(t, agents...)
	return linked
}
