package group

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

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
	ProtocolType text           `json:"protocolType,omitempty"`
	Generation   int32          `json:"generation"`
	Protocol     text           `json:"protocol,omitempty"`
	Leader       text           `json:"leader,omitempty"`
	Members      []memberRecord `json:"members,omitempty"` // by age
}

type memberRecord struct {
	ID               text             `json:"id"`
	Instance         text             `json:"instance,omitempty"`
	ClientID         text             `json:"clientId"`
	ClientHost       string           `json:"clientHost"`
	SessionTimeout   int64            `json:"sessionTimeoutMs"`
	RebalanceTimeout int64            `json:"rebalanceTimeoutMs"`
	Protocols        []protocolRecord `json:"protocols"`
	Assignment       []byte           `json:"assignment,omitempty"`
}

type protocolRecord struct {
	Name     text   `json:"name"`
	Metadata []byte `json:"metadata,omitempty"`
}

// text is what a client says, which need not be UTF-8. JSON can't hold other bytes:
// members whose ids differ in nothing else would be one in a record.
type text string

// otherBytes is the form of a text that is none.
type otherBytes struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON implements json.Marshaler.
func (t text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return json.Marshal(string(t))
	}
	return json.Marshal(otherBytes{[]byte(t)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(data []byte) error {
	if data[0] != '{' {
		return json.Unmarshal(data, (*string)(t))
	}
	var other otherBytes
	err := json.Unmarshal(data, &other)
	*t = text(other.Base64)
	return err
}

// convert converts a list of strings to one of texts, or back.
func convert[To, From ~string](list []From) []To {
	var converted []To
	for _, s := range list {
		converted = append(converted, To(s))
	}
	return converted
}

func recordProtocols(protocols []Protocol) (records []protocolRecord) {
	for _, p := range protocols {
		records = append(records, protocolRecord{text(p.Name), p.Metadata})
	}
	return records
}

func loadProtocols(records []protocolRecord) (protocols []Protocol) {
	for _, r := range records {
		protocols = append(protocols, Protocol{string(r.Name), r.Metadata})
	}
	return protocols
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
		State:        g.state.String(), ProtocolType: text(g.protocolType),
		Generation: g.generation, Protocol: text(g.protocol), Leader: text(g.leader),
	}
	for _, mb := range g.members {
		r.Members = append(r.Members, memberRecord{
			ID: text(mb.id), Instance: text(mb.instance), ClientID: text(mb.clientID), ClientHost: mb.clientHost,
			SessionTimeout: mb.sessionTimeout.Milliseconds(), RebalanceTimeout: mb.rebalanceTimeout.Milliseconds(),
			Protocols: recordProtocols(mb.protocols), Assignment: mb.assignment,
		})
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
	g.protocolType, g.generation, g.protocol, g.leader = string(r.ProtocolType), r.Generation, string(r.Protocol), string(r.Leader)
	for _, s := range r.Members {
		mb := &member{
			id: string(s.ID), instance: string(s.Instance), clientID: string(s.ClientID), clientHost: s.ClientHost,
			sessionTimeout:   time.Duration(s.SessionTimeout) * time.Millisecond,
			rebalanceTimeout: time.Duration(s.RebalanceTimeout) * time.Millisecond,
			protocols:        loadProtocols(s.Protocols), assignment: s.Assignment,
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
