package group

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/streamhouse/streamhouse/metadata"
)

// A group's record is JSON, so that a person can read it. Every kind of group has
// a form of its own, which begins with a recordHeader.

// recordVersion is the version of the records that are written. One that agents
// of the release before can't read has a higher one.
const recordVersion = 1

// maxGroupBytes bounds what the members of a group say of themselves, all of them
// together, and what their leader assigns to them. It all is one record: one that
// takes too long to be stored would end the shard, for all its groups. Kafka's bound
// is that of a record (message.max.bytes), 1 MiB by default.
const maxGroupBytes = 16 << 20

// errRecord says that a group's record can't be read: it is of a newer release, or
// not of this program.
var errRecord = errors.New("unknown record of a group")

// recordHeader says how to read what comes with it.
type recordHeader struct {
	Version int    `json:"version"`
	Type    string `json:"type"` // Kafka's name of the group's type
}

// classicRecord is a classic group as it was when its generation began, became
// stable, or ended without members.
type classicRecord struct {
	recordHeader
	State        string         `json:"state"`
	ProtocolType string         `json:"protocolType,omitempty"`
	Generation   int32          `json:"generation"`
	Protocol     string         `json:"protocol,omitempty"`
	Leader       string         `json:"leader,omitempty"`
	Members      []memberRecord `json:"members,omitempty"` // by age
}

type memberRecord struct {
	ID               string           `json:"id"`
	Instance         string           `json:"instance,omitempty"`
	ClientID         string           `json:"clientId"`
	ClientHost       string           `json:"clientHost"`
	SessionTimeout   int64            `json:"sessionTimeoutMs"`
	RebalanceTimeout int64            `json:"rebalanceTimeoutMs"`
	Protocols        []protocolRecord `json:"protocols"`
	Assignment       []byte           `json:"assignment,omitempty"`
}

type protocolRecord struct {
	Name     string `json:"name"`
	Metadata []byte `json:"metadata,omitempty"`
}

// encodeRecord encodes the record of a group of any kind.
func encodeRecord(record any) string {
	text, err := json.Marshal(record)
	if err != nil {
		panic(fmt.Sprintf("group: a record that is no JSON: %v", err)) // records have nothing that can't be encoded
	}
	return string(text)
}

// record implements coordinated.
func (g *group) record() any {
	r := classicRecord{
		recordHeader: recordHeader{recordVersion, ClassicType},
		State:        g.state.String(), ProtocolType: g.protocolType,
		Generation: g.generation, Protocol: g.protocol, Leader: g.leader,
	}
	for _, mb := range g.members {
		m := memberRecord{
			ID: mb.id, Instance: mb.instance, ClientID: mb.clientID, ClientHost: mb.clientHost,
			SessionTimeout: mb.sessionTimeout.Milliseconds(), RebalanceTimeout: mb.rebalanceTimeout.Milliseconds(),
			Assignment: mb.assignment,
		}
		for _, p := range mb.protocols {
			m.Protocols = append(m.Protocols, protocolRecord(p))
		}
		r.Members = append(r.Members, m)
	}
	return r
}

// load makes the group of what was stored of it. Members have their whole session
// timeout to find their new coordinator.
func (m *machine) load(now time.Duration, stored *metadata.StoredGroup) error {
	if stored.Record == "" {
		m.newGroup(now-stored.Age, stored.Group).known = true
		return nil
	}
	var header recordHeader
	err := json.Unmarshal([]byte(stored.Record), &header)
	switch {
	case err != nil:
	case header.Version == recordVersion && header.Type == ClassicType:
		err = m.loadClassic(now, stored)
	case header.Version == recordVersion && header.Type == ConsumerType:
		err = m.loadConsumer(now, stored)
	default:
		err = fmt.Errorf("%w: version %d of type %q", errRecord, header.Version, header.Type)
	}
	if err != nil {
		return fmt.Errorf("load group %q: %w", stored.Group, err)
	}
	return nil
}

func (m *machine) loadClassic(now time.Duration, stored *metadata.StoredGroup) error {
	var r classicRecord
	if err := json.Unmarshal([]byte(stored.Record), &r); err != nil {
		return err
	}
	g := m.newGroup(now-stored.Age, stored.Group)
	g.known = true
	g.protocolType, g.generation, g.protocol, g.leader = r.ProtocolType, r.Generation, r.Protocol, r.Leader
	for _, s := range r.Members {
		mb := &member{
			id: s.ID, instance: s.Instance, clientID: s.ClientID, clientHost: s.ClientHost,
			sessionTimeout:   time.Duration(s.SessionTimeout) * time.Millisecond,
			rebalanceTimeout: time.Duration(s.RebalanceTimeout) * time.Millisecond,
			assignment:       s.Assignment,
		}
		for _, p := range s.Protocols {
			mb.protocols = append(mb.protocols, Protocol(p))
		}
		g.insert(mb)
		g.extend(now, mb)
	}
	switch r.State {
	case Empty.String():
	case CompletingRebalance.String():
		g.setState(CompletingRebalance)
		g.readTopics()
		g.awaitSyncs(now)
	case Stable.String():
		g.setState(Stable)
		g.readTopics()
	case PreparingRebalance.String(): // begun when the group became a classic one
		g.setState(Stable)
		g.readTopics()
		g.rebalance(now, "the coordinator has changed")
	default:
		return fmt.Errorf("%w: state %q", errRecord, r.State)
	}
	return g.holds()
}
