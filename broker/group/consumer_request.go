package group

import (
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/group/assignor"
)

// Refusal is a code of Kafka's with words about this case, for the client.
type Refusal struct {
	Code    *kerr.Error
	Message string
}

func (r *Refusal) Error() string { return r.Message }

// Unwrap returns the code.
func (r *Refusal) Unwrap() error { return r.Code }

func refuse(code *kerr.Error, format string, args ...any) error {
	return &Refusal{code, fmt.Sprintf(format, args...)}
}

// Member epochs that are no epochs (KIP-848).
const (
	// JoinEpoch asks for membership, or for a new beginning of one that the
	// member believes lost. The member owns nothing.
	JoinEpoch int32 = 0
	// LeaveEpoch ends the membership.
	LeaveEpoch int32 = -1
	// LeaveStaticEpoch says that a static member will be back before its session
	// ends, as another process; what it owns waits for it.
	LeaveStaticEpoch int32 = -2
)

// ConsumerHeartbeatRequest is all that a member of the consumer protocol asks
// (KIP-848). What it leaves out has not changed.
type ConsumerHeartbeatRequest struct {
	Group      string
	MemberID   string // "" for a new member that wants one (v0)
	Epoch      int32  // the member's, or one of JoinEpoch, LeaveEpoch, LeaveStaticEpoch
	InstanceID string // of a static member (KIP-345)
	Rack       string
	ClientID   string
	ClientHost string
	// RebalanceTimeout is how long the member may take to give partitions up;
	// negative if left out.
	RebalanceTimeout time.Duration
	Topics           []string            // to which it subscribes; nil if left out
	Regex            *string             // in RE2's syntax; nil if left out, "" for none
	Assignor         string              // "" if left out
	Owned            assignor.Partitions // nil if left out

	newMemberID string // for a member without an id; set by the coordinator
}

// bytes is how many the member says of itself, which may leave out what has not
// changed.
func (r *ConsumerHeartbeatRequest) bytes() int {
	n := len(r.MemberID) + len(r.newMemberID) + len(r.InstanceID) + len(r.Rack) + len(r.ClientID) + textBytes(r.Topics)
	if r.Regex != nil {
		n += len(*r.Regex)
	}
	return n
}

// ConsumerHeartbeatResponse is a member's place in its group.
type ConsumerHeartbeatResponse struct {
	MemberID string
	Epoch    int32
	Interval time.Duration // of its heartbeats
	// Assignment is what the member may own, and nothing else; nil if that is
	// what it was told before.
	Assignment assignor.Partitions
}

// consumerDescribeRequest needs no more than the group's name.
type consumerDescribeRequest struct{ group string }

// ConsumerDescription is a group of the consumer protocol with its members.
type ConsumerDescription struct {
	State       State
	Epoch       int32
	TargetEpoch int32 // the group's epoch that the target assignment was made for
	Assignor    string
	Members     []ConsumerMemberDescription // by id
}

// ConsumerMemberDescription is a member of a described group.
type ConsumerMemberDescription struct {
	MemberID   string
	InstanceID string
	Rack       string
	ClientID   string
	ClientHost string
	Epoch      int32
	Topics     []string
	Regex      string
	Assigned   []NamedPartitions
	Target     []NamedPartitions
	Classic    bool // it uses the classic protocol, and is to be migrated
}

// NamedPartitions are partitions of a topic.
type NamedPartitions struct {
	TopicID    uuid.UUID
	Topic      string
	Partitions []int32
}

// View is how groups see the cluster. It does not change.
type View interface {
	// Version is how new the view is. It grows, on all agents alike.
	Version() int64
	// Changed is a version, not after the view's, since which no topic has
	// changed.
	Changed() int64
	// Lookup finds a topic by its name.
	Lookup(name string) (id uuid.UUID, partitions int32, ok bool)
	// Name finds a topic by its id.
	Name(id uuid.UUID) (name string, ok bool)
	// Names returns the names of all topics, in any order.
	Names() []string
	// Config returns the effective configuration of a group.
	Config(group string) *config.Group
}
