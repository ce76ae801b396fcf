package group

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/broker/group/assignor"
	"github.com/streamhouse/streamhouse/metadata"
)

// consumerRecord is a group of the consumer protocol, after every step that
// changes it: a member is told of nothing that the next coordinator does not know.
type consumerRecord struct {
	recordHeader
	Epoch         int32                  `json:"epoch"`
	TargetEpoch   int32                  `json:"targetEpoch"`
	TopicsVersion int64                  `json:"topicsVersion"`
	Topics        map[uuid.UUID]int32    `json:"topics,omitempty"` // partitions of what is subscribed to
	Members       []consumerMemberRecord `json:"members,omitempty"`
}

type consumerMemberRecord struct {
	ID               text             `json:"id"`
	Instance         text             `json:"instance,omitempty"`
	Rack             text             `json:"rack,omitempty"`
	ClientID         text             `json:"clientId"`
	ClientHost       string           `json:"clientHost"`
	RebalanceTimeout int64            `json:"rebalanceTimeoutMs"`
	Topics           []text           `json:"topics,omitempty"`
	Regex            text             `json:"regex,omitempty"`
	Assignor         text             `json:"assignor,omitempty"`
	State            string           `json:"state"`
	Epoch            int32            `json:"epoch"`
	PreviousEpoch    int32            `json:"previousEpoch"`
	Assigned         partitionsRecord `json:"assigned,omitempty"`
	Revoking         partitionsRecord `json:"revoking,omitempty"`
	Target           partitionsRecord `json:"target,omitempty"`

	SessionTimeout int64            `json:"sessionTimeoutMs,omitempty"` // of the classic protocol
	Protocols      []protocolRecord `json:"protocols,omitempty"`        // of the classic protocol
}

// memberStates are the states' names, as Kafka has them.
var memberStates = []string{
	memberStable:     "STABLE",
	memberUnrevoked:  "UNREVOKED_PARTITIONS",
	memberUnreleased: "UNRELEASED_PARTITIONS",
}

// partitionsRecord are partitions by topic, in text such as "0-4,7".
type partitionsRecord assignor.Partitions

// record implements coordinated.
func (g *consumerGroup) record() any {
	r := consumerRecord{
		recordHeader: recordHeader{recordVersion, ConsumerType},
		Epoch:        g.epoch, TargetEpoch: g.targetEpoch, TopicsVersion: g.topicsVersion, Topics: g.partitions,
	}
	for _, mb := range g.sorted() {
		m := consumerMemberRecord{
			ID: text(mb.id), Instance: text(mb.instance), Rack: text(mb.rack), ClientID: text(mb.clientID), ClientHost: mb.clientHost,
			RebalanceTimeout: mb.rebalanceTimeout.Milliseconds(),
			Topics:           convert[text](mb.topics), Regex: text(mb.regex), Assignor: text(mb.assignor),
			State: memberStates[mb.state], Epoch: mb.epoch, PreviousEpoch: mb.previousEpoch,
			Assigned: partitionsRecord(mb.assigned), Revoking: partitionsRecord(mb.revoking), Target: partitionsRecord(mb.target),
		}
		if mb.classic != nil {
			m.SessionTimeout, m.Protocols = mb.classic.sessionTimeout.Milliseconds(), recordProtocols(mb.classic.protocols)
		}
		r.Members = append(r.Members, m)
	}
	return r
}

// loadConsumer makes the group of its record. Members have their whole timeouts to
// find their new coordinator.
func (m *machine) loadConsumer(now time.Duration, stored *metadata.StoredGroup) error {
	var r consumerRecord
	if err := json.Unmarshal([]byte(stored.Record), &r); err != nil {
		return err
	}
	g := m.newConsumerGroup(stored.Group)
	g.epoch, g.targetEpoch, g.topicsVersion = r.Epoch, r.TargetEpoch, r.TopicsVersion
	if r.Topics != nil {
		g.partitions = r.Topics
	}
	for i := range r.Members {
		mb, err := g.loadMember(&r.Members[i])
		if err != nil {
			return err
		}
		if g.members[mb.id] != nil || mb.instance != "" && g.static[mb.instance] != nil {
			return fmt.Errorf("%w: member %q twice", errRecord, mb.id)
		}
		g.put(mb)
		session := m.view().Config(g.id).SessionTimeout
		if mb.classic != nil {
			session = mb.classic.sessionTimeout
		}
		m.timers.schedule(&mb.session, now+session)
		if mb.classic == nil && mb.revoking.Count() > 0 {
			m.timers.schedule(&mb.reaction, now+mb.rebalanceTimeout)
		}
	}
	g.insert()
	_, err := g.check()
	return err
}

func (g *consumerGroup) loadMember(s *consumerMemberRecord) (*consumerMember, error) {
	mb := g.newMember(string(s.ID), string(s.Instance))
	mb.rack, mb.clientID, mb.clientHost = string(s.Rack), string(s.ClientID), s.ClientHost
	mb.rebalanceTimeout = time.Duration(s.RebalanceTimeout) * time.Millisecond
	mb.topics, mb.regex, mb.assignor = convert[string](s.Topics), string(s.Regex), string(s.Assignor)
	mb.epoch, mb.previousEpoch = s.Epoch, s.PreviousEpoch
	switch s.State {
	case memberStates[memberStable]:
		mb.state = memberStable
	case memberStates[memberUnrevoked]:
		mb.state = memberUnrevoked
	case memberStates[memberUnreleased]:
		mb.state = memberUnreleased
	default:
		return nil, fmt.Errorf("%w: state %q of a member", errRecord, s.State)
	}
	if s.Assigned != nil {
		mb.assigned = assignor.Partitions(s.Assigned)
	}
	mb.revoking, mb.target = assignor.Partitions(s.Revoking), assignor.Partitions(s.Target)
	if len(s.Protocols) > 0 {
		mb.classic = &classicMember{
			sessionTimeout: time.Duration(s.SessionTimeout) * time.Millisecond, protocols: loadProtocols(s.Protocols),
		}
	}
	return mb, nil
}

// MarshalJSON implements json.Marshaler.
func (r partitionsRecord) MarshalJSON() ([]byte, error) {
	texts := make(map[uuid.UUID]string, len(r))
	for topic, list := range r {
		texts[topic] = formatPartitions(list)
	}
	return json.Marshal(texts)
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *partitionsRecord) UnmarshalJSON(data []byte) error {
	var texts map[uuid.UUID]string
	if err := json.Unmarshal(data, &texts); err != nil {
		return err
	}
	*r = make(partitionsRecord, len(texts))
	for topic, text := range texts {
		list, err := parsePartitions(text)
		if err != nil {
			return err
		}
		(*r)[topic] = list
	}
	return nil
}

// formatPartitions is the text of partitions that ascend.
func formatPartitions(list []int32) string {
	var text []byte
	for i := 0; i < len(list); {
		end := i + 1
		for end < len(list) && list[end] == list[end-1]+1 {
			end++
		}
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, int64(list[i]), 10)
		if end > i+1 {
			text = strconv.AppendInt(append(text, '-'), int64(list[end-1]), 10)
		}
		i = end
	}
	return string(text)
}

// maxPartition keeps a record that is not from here from filling the memory.
const maxPartition = 1 << 20

// parsePartitions is the inverse of formatPartitions.
func parsePartitions(text string) (list []int32, err error) {
	next := int64(0) // they ascend
	for part := range strings.SplitSeq(text, ",") {
		from, to, ranged := strings.Cut(part, "-")
		if !ranged {
			to = from
		}
		first, err1 := strconv.ParseInt(from, 10, 32)
		last, err2 := strconv.ParseInt(to, 10, 32)
		if err1 != nil || err2 != nil || first < next || last < first || last > maxPartition {
			return nil, fmt.Errorf("%w: partitions %q", errRecord, text)
		}
		for p := first; p <= last; p++ {
			list = append(list, int32(p))
		}
		next = last + 1
	}
	return list, nil
}
