package metadata

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Agent is one registered process.
type Agent struct {
	ID      string    // configured; unique among running agents
	NodeID  int32     // Kafka's broker id; given at the first registration of ID, kept for ever
	Session uuid.UUID // one life of the process
	Host    string    // advertised to clients
	Port    int32     // advertised to clients
	Zone    string    // availability zone; Kafka's rack; may be empty
	Group   string    // agent group; may be empty

	// HeartbeatAge is how long ago the agent was last heard of, by the store's
	// clock when it was read. Ignored by Register.
	HeartbeatAge time.Duration
}

// AgentListedFor is the age of a heartbeat from which on an agent is not
// listed any more.
const AgentListedFor = 60 * time.Second

// Agents is the register of running agents. Listing them is part of
// Topics.Topology.
type Agents interface {
	// Register makes the agent known and supersedes an earlier session of the
	// same id. It returns the agent's node id.
	Register(ctx context.Context, a Agent) (nodeID int32, err error)
	// Heartbeat says that the session is alive. ErrSuperseded if another
	// session has taken the id, or the id was deregistered.
	Heartbeat(ctx context.Context, agentID string, session uuid.UUID) error
	// Deregister ends the session; a session that was superseded changes nothing.
	Deregister(ctx context.Context, agentID string, session uuid.UUID) error
}
