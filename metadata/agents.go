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
	Group   string    // agent group; DefaultAgentGroup if it names none
	// PeerAddress is host:port at which other agents of the group reach this one's
	// RPC (package broker/rpc); "" if it has none, as those of older releases.
	PeerAddress string

	// HeartbeatAge is how long ago the agent was last heard of, by the store's
	// clock when it was read. Ignored by Register.
	HeartbeatAge time.Duration
}

// AgentListedFor is the age of a heartbeat from which on an agent is not
// listed any more.
const AgentListedFor = 60 * time.Second

// Agents is the register of running agents of an agent group, which may reach each
// other where others do not. Listing them is part of Topics.Topology.
//
// Death is decided here and by nobody's clock: an agent attends with a sign of
// life that ends with its process, and answers challenges; who sees that an
// agent does not answer asks for its burial, and the store looks for evidence.
// A burial that was wrong costs time and nothing else, since commits are fenced.
type Agents interface {
	// Register makes the agent known and supersedes an earlier session of the
	// same id. It returns the agent's node id. A session that was buried may be
	// registered again. ErrAgentGroup if the agent's group is not the store's, or if
	// an agent of another group that is listed has the id. An agent that comes from
	// another group leaves its leases there behind, free.
	Register(ctx context.Context, a Agent) (nodeID int32, err error)
	// Heartbeat says that the session is alive. ErrSuperseded if another
	// session has taken the id; ErrBuried if the session has ended otherwise.
	Heartbeat(ctx context.Context, agentID string, session uuid.UUID) error
	// Deregister ends the session, and frees what was handed over to the agent and
	// not acquired; a session that was superseded changes nothing.
	Deregister(ctx context.Context, agentID string, session uuid.UUID) error

	// Attend holds the session's sign of life, for which one connection is kept,
	// until ctx ends, and returns nil then. Any other end is an error: ErrSuperseded
	// and ErrBuried as of Heartbeat, ErrUnavailable if the connection was lost.
	// That is no death yet; the agent attends again.
	Attend(ctx context.Context, agentID string, session uuid.UUID, s Signals) error
	// Challenge asks the session for a heartbeat, which begins its time to answer
	// unless a challenge is open already. One that does not attend is not asked.
	Challenge(ctx context.Context, agentID string, session uuid.UUID) error
	// Bury ends the session and frees all leases of its agent, at once and
	// together, if there is evidence that it is dead: its sign of life is gone,
	// or it has left a challenge unanswered for the time of patience. One that
	// has never attended is not buried.
	Bury(ctx context.Context, agentID string, session uuid.UUID, patience time.Duration) (Burial, error)

	// Report keeps, or takes back, that one agent can't reach another that may be
	// alive. A report about a session that has ended, or by one, changes nothing. It
	// counts for ReportValidFor, and no longer than the two sessions last.
	Report(ctx context.Context, r Report) error
	// Isolated says whether the session is one that nobody reaches: all who watch it
	// report so, which are at least two, and one of them is not in that state itself.
	// Where all agents report all others, their addresses are such that only clients
	// reach them, and nobody is isolated; nor is one of two agents ever, since it
	// can't be told which of them is cut off.
	Isolated(ctx context.Context, agentID string, session uuid.UUID) (bool, error)
}

// WatchersOfEach is how many others watch an agent, as far as there are so many:
// enough that one is left when some die at once.
const WatchersOfEach = 3

// ReportValidFor is how long a report counts that is neither repeated nor taken
// back.
const ReportValidFor = 90 * time.Second

// Report is one agent's word about another that it watches.
type Report struct {
	AgentID     string // who is watched
	Session     uuid.UUID
	ReporterID  string
	Reporter    uuid.UUID // the reporter's session
	Unreachable bool      // false takes the report back
}

// Signals are what an agent that attends is told. They must not block.
type Signals struct {
	Present    func() // the sign of life is up
	Challenged func() // somebody doubts that the agent lives: a heartbeat answers
}

// Burial is what became of a burial, and on what evidence.
type Burial int8

// The burials. The numbers are those of bury_agent in PostgreSQL.
const (
	NotBuried   Burial = iota // the agent may be alive
	BuriedGone                // its sign of life was gone
	BuriedMute                // it did not answer a challenge
	EndedBefore               // the session is not the agent's any more
)

// Buried says whether this burial has ended the session.
func (b Burial) Buried() bool { return b == BuriedGone || b == BuriedMute }

// String names the evidence, for logs and metrics.
func (b Burial) String() string {
	switch b {
	case BuriedGone:
		return "session_gone"
	case BuriedMute:
		return "challenge_unanswered"
	case EndedBefore:
		return "ended_before"
	}
	return "none"
}
