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
	// Zone is its availability zone, and Peers is in front of its listener for peers: both in a ZonedCluster only.
	Zone  string
	Peers *Link
}

// Address is host:port of the link to the Kafka listener, which the agent advertises.
func (a *LinkedAgent) Address() string { return a.Kafka.Address() }

// Heal ends the faults of all its links.
func (a *LinkedAgent) Heal() {
	a.Kafka.Heal()
	a.Postgres.Heal()
	a.S3.Heal()
	if a.Peers != nil {
		a.Peers.Heal()
	}
}

// LinkedCluster is Cluster with links. They are healed before the agents are stopped.
func LinkedCluster(t testing.TB, stores Stores, n int, env ...string) []*LinkedAgent {
	t.Helper()
	linked := PrepareLinkedCluster(t, stores, n, env...)
	agents := make([]*Agent, n)
	for i, a := range linked {
		agents[i] = a.Agent
	}
	start(t, agents...)
	return linked
}

// PrepareLinkedCluster is LinkedCluster but for the start.
func PrepareLinkedCluster(t testing.TB, stores Stores, n int, env ...string) []*LinkedAgent {
	t.Helper()
	var linked []*LinkedAgent
	for i := range n {
		agent, err := newAgent(fmt.Sprintf("a%d", i+1), t.TempDir(), env, nil)
		if err != nil {
			t.Fatal(err)
		}
		a := &LinkedAgent{
			Agent:    agent,
			Kafka:    newLink(t, agent.address),
			Postgres: DatabaseLink{newLink(t, stores.Metadata)},
			S3:       newBucketLink(t, stores.Objects, newObjectUse()),
		}
		agent.flags = []string{
			"--advertised-address", a.Kafka.Address(),
			"--metadata-url", a.Postgres.proxy.URL(), "--object-url", a.S3.proxy.URL(),
		}
		stopAfter(t, agent) // and not what was made before, which it needs
		linked = append(linked, a)
	}
	t.Cleanup(func() {
		for _, a := range linked {
			a.Heal()
		}
	})
	return linked
}
