package group

import (
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// Membership is who a request claims to come from.
type Membership struct {
	Group      string
	MemberID   string // "" for none
	InstanceID string // of a static member (KIP-345); "" for a dynamic one
	Generation int32  // -1 for none
}

// Protocol is one way to assign partitions that a member supports.
type Protocol struct {
	Name     string
	Metadata []byte // must not be changed any more
}

// JoinRequest asks for membership in the next generation of a group.
type JoinRequest struct {
	Group            string
	MemberID         string // "" for a new member
	InstanceID       string
	ClientID         string
	ClientHost       string
	ProtocolType     string
	Protocols        []Protocol // by preference
	SessionTimeout   time.Duration
	RebalanceTimeout time.Duration
	Reason           string
	// KnownMemberID says that the client can be told to join again with the
	// member id that it is given (KIP-394; JoinGroup v4 and later).
	KnownMemberID bool
	// CanSkipAssignment says that the client can lead a group without assigning
	// anew (KIP-814; JoinGroup v9 and later).
	CanSkipAssignment bool

	newMemberID string // for a member without an id; set by the coordinator
}

// JoinResponse is a member's place in a generation. With MEMBER_ID_REQUIRED it
// has only the member's new id.
type JoinResponse struct {
	MemberID       string
	Generation     int32
	ProtocolType   string
	Protocol       string
	LeaderID       string
	SkipAssignment bool           // the leader must not assign (KIP-814)
	Members        []JoinedMember // all of them, for the leader only
}

// JoinedMember is a member as the leader sees it, which assigns partitions to it.
type JoinedMember struct {
	MemberID   string
	InstanceID string
	Metadata   []byte // of the protocol that was chosen
}

// SyncRequest asks for the member's assignment; the leader's brings them all.
type SyncRequest struct {
	Membership
	ProtocolType string // "" if the client did not say
	Protocol     string // "" if the client did not say
	Assignments  []Assignment
}

// Assignment is what the leader assigned to a member.
type Assignment struct {
	MemberID string
	Data     []byte // must not be changed any more
}

// SyncResponse is a member's assignment.
type SyncResponse struct {
	ProtocolType string
	Protocol     string
	Assignment   []byte
}

// HeartbeatRequest extends a member's session.
type HeartbeatRequest struct{ Membership }

// LeaveRequest removes members of a group.
type LeaveRequest struct {
	Group   string
	Members []LeavingMember
}

// LeavingMember is named by its member id, by its instance id, or by both.
type LeavingMember struct {
	MemberID   string
	InstanceID string
	Reason     string
}

// CommitRequest stores a group's positions. A consumer that manages its
// partitions itself has generation -1 and no member id.
type CommitRequest struct {
	Membership
	Offsets []metadata.CommittedOffset
	// MemberEpochs says that the client knows of KIP-848 and its codes
	// (OffsetCommit v9 and later).
	MemberEpochs bool
}

// FetchRequest asks for all positions of a group. MemberID and Epoch say who asks,
// for groups of the consumer protocol; "" and -1 are anybody.
type FetchRequest struct {
	Group    string
	MemberID string
	Epoch    int32
}

// DeleteOffsetsRequest forgets positions of a group.
type DeleteOffsetsRequest struct {
	Group      string
	Partitions []Partition
}

// Partition is a partition with the name of its topic, by which members
// subscribe.
type Partition struct {
	lease.Key
	Topic string
}

// Requests that need no more than the group's name, or not even that.
type (
	describeRequest struct{ group string }
	deleteRequest   struct{ group string }
	listRequest     struct{} // of a shard
)

// State is where a group is in the protocol.
type State int

// The states of a group. PreparingRebalance and CompletingRebalance are of classic
// groups, Assigning and Reconciling of groups of the consumer protocol (KIP-848).
// A group that is not known to exist is Dead.
const (
	Dead State = iota
	Empty
	PreparingRebalance
	CompletingRebalance
	Assigning
	Reconciling
	Stable

	states = iota
)

// String returns Kafka's name of the state.
func (s State) String() string {
	return [states]string{"Dead", "Empty", "PreparingRebalance", "CompletingRebalance", "Assigning", "Reconciling", "Stable"}[s]
}

// The types of groups (KIP-848).
const (
	ClassicType  = "classic"
	ConsumerType = "consumer"
)

// Description is a group with its members.
type Description struct {
	State        State
	ProtocolType string
	Protocol     string // "" unless Stable
	Members      []MemberDescription
}

// MemberDescription is a member of a described group.
type MemberDescription struct {
	MemberID   string
	InstanceID string
	ClientID   string
	ClientHost string
	Metadata   []byte // nil unless the group is Stable
	Assignment []byte // nil unless the group is Stable
}

// ListFilter selects groups. An empty filter of states or types selects all.
type ListFilter struct {
	States []string // Kafka's names, in any case
	Types  []string // in any case
	// Shards says which shards clients are told to find here. Groups of other
	// shards are listed too while this agent coordinates them.
	Shards func(lease.Key) bool
}

// Listed is a group in a list.
type Listed struct {
	Group        string
	ProtocolType string
	State        State
	Type         string // ClassicType or ConsumerType
}
