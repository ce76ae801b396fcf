package group

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group/assignor"
)

// classicBeat joins, syncs or is heard of, whatever comes next. Who waits for an
// answer may lose patience.
func (w *world) classicBeat(c *client, loses bool) {
	if c.waits != nil && w.draw("patience", 6) > 0 {
		return
	}
	m := Membership{Group: "g", MemberID: c.id, InstanceID: c.instance, Generation: c.epoch}
	var request any = &HeartbeatRequest{m}
	switch {
	case !c.joined:
		if c.eager {
			c.uses = assignor.Partitions{}
		}
		r := &JoinRequest{
			Group: "g", MemberID: c.id, InstanceID: c.instance, ProtocolType: consumerProtocol, Protocols: w.says(c),
			SessionTimeout: 20 * time.Second, RebalanceTimeout: 10 * time.Second,
		}
		if c.newcomer {
			w.ids++
			r.MemberID, r.newMemberID = "", fmt.Sprint("m", w.ids)
		}
		request = r
	case !c.synced:
		request = &SyncRequest{Membership: m, Assignments: w.assign(c.leads)}
	}
	c.waits, c.loses = newCall(), loses
	effects := w.m.step(w.now, c.waits, request)
	if loses && w.draw("crash", 2) == 0 {
		w.Logf("%T %+v: crash", request, request)
		w.restart()
		return
	}
	w.Logf("%T %+v", request, request)
	w.take(effects)
}

// classicAnswer takes the answer that a client waits for.
func (w *world) classicAnswer(c *client, answer any, err error) {
	w.Logf("%s: %+v %v, lost: %v", c.id, answer, err, c.loses)
	c.waits = nil
	switch {
	case c.loses:
		return
	case err != nil:
		c.joined = false
		if !errors.Is(err, kerr.RebalanceInProgress) {
			c.uses = assignor.Partitions{}
		}
		if errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.FencedInstanceID) {
			c.newcomer = true
		}
		return
	}
	switch a := answer.(type) {
	case JoinResponse:
		c.id, c.newcomer = a.MemberID, false
		c.joined, c.synced, c.epoch, c.leads = true, false, a.Generation, a.Members
	case SyncResponse:
		c.synced = true
		var says kmsg.ConsumerMemberAssignment
		if len(a.Assignment) > 0 {
			if err := says.ReadFrom(a.Assignment); err != nil {
				w.Fatal(err)
			}
		}
		next := assigned(w.topics, &says)
		c.joined = subset(c.uses, next) // or it says that it gave something up
		c.uses = next
	}
}

// says is a subscription in the classic protocol.
func (w *world) says(c *client) []Protocol {
	s := kmsg.NewConsumerMemberMetadata()
	s.Version, s.Topics = 1, c.topics
	for _, p := range named(w.topics, c.uses) {
		s.OwnedPartitions = append(s.OwnedPartitions, kmsg.ConsumerMemberMetadataOwnedPartition{Topic: p.Topic, Partitions: p.Partitions})
	}
	return []Protocol{{Name: "cooperative-sticky", Metadata: s.AppendTo(nil)}}
}

// assign is what a leader assigns, which is cooperative: what somebody owns is
// nobody else's before it was given up.
func (w *world) assign(members []JoinedMember) []Assignment {
	owners, subscribers := make(map[slot]string), make(map[string][]string)
	for _, mb := range members {
		var says kmsg.ConsumerMemberMetadata
		if err := says.ReadFrom(mb.Metadata); err != nil {
			w.Fatal(err)
		}
		for _, topic := range says.Topics {
			subscribers[topic] = append(subscribers[topic], mb.MemberID)
		}
		for _, t := range says.OwnedPartitions {
			for _, p := range t.Partitions {
				owners[slot{t.Topic, p}] = mb.MemberID
			}
		}
	}
	assigned := make(map[string]assignor.Partitions)
	for topic, ids := range subscribers {
		slices.Sort(ids)
		for p := range w.topics.sizes[topic] {
			id := ids[int(p)%len(ids)]
			if owner := owners[slot{topic, p}]; owner != "" && owner != id {
				continue
			}
			if assigned[id] == nil {
				assigned[id] = make(assignor.Partitions)
			}
			assigned[id][topicID(topic)] = append(assigned[id][topicID(topic)], p)
		}
	}
	var all []Assignment
	for id, partitions := range assigned {
		all = append(all, Assignment{id, classicAssignment(partitions)})
	}
	return all
}
