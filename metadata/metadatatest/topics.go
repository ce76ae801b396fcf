package metadatatest

import (
	"errors"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// wantErr checks an error's kind.
func (e *env) wantErr(got, want error) {
	e.Helper()
	if !errors.Is(got, want) {
		e.Errorf("got error %v, want %v", got, want)
	}
}

// findTopic looks for a topic in all of the topology.
func (e *env) findTopic(id uuid.UUID) (metadata.Topic, bool) {
	e.Helper()
	all := must(e.store.Topology(e.ctx, 0))(e)
	if i := slices.IndexFunc(all.Topics, func(t metadata.Topic) bool { return t.ID == id }); i >= 0 {
		return all.Topics[i], true
	}
	return metadata.Topic{}, false
}

// partitionCount counts a topic's partitions by asking for them.
func (e *env) partitionCount(id uuid.UUID) (n int) {
	e.Helper()
	var ks []lease.Key
	for p := range int32(50) {
		ks = append(ks, lease.Key{TopicID: id, Partition: p})
	}
	for _, w := range must(e.store.Watermarks(e.ctx, ks))(e) {
		if w != nil {
			n++
		}
	}
	return n
}

var topicTests = []test{
	{"a created topic is there with its partitions and configs", func(e *env) {
		id := uuid.New()
		want := metadata.Topic{ID: id, Name: "t." + id.String(), Partitions: 7, Configs: map[string]string{"a": "1", `q"`: "ü\n"}}
		e.ok(e.store.CreateTopic(e.ctx, metadata.NewTopic{ID: want.ID, Name: want.Name, Partitions: want.Partitions, Configs: want.Configs}))
		got, _ := e.findTopic(id)
		e.equal("topic", got, want)
		e.equal("partitions", e.partitionCount(id), 7)
	}},
	{"creating it again with the same id is no error, and changes nothing", func(e *env) {
		topic := e.newTopic(3)
		e.ok(e.store.CreateTopic(e.ctx, topic))
		e.equal("partitions", e.partitionCount(topic.ID), 3)
	}},
	{"a name is taken by the first id that has it", func(e *env) {
		topic := e.newTopic(3)
		rival := topic
		rival.ID = uuid.New()
		e.wantErr(e.store.CreateTopic(e.ctx, rival), metadata.ErrTopicExists)
		e.equal("partitions", e.partitionCount(rival.ID), 0)
		if _, there := e.findTopic(rival.ID); there {
			e.Error("the refused topic is there")
		}
	}},
	{"nothing of a deleted topic can be read", func(e *env) {
		topic, pr := e.newTopic(2), e.newProducer()
		terms := e.lead(e.agent, ttl, keys(topic)...)
		e.commit(pr.batch(terms[0], 0, 5), pr.batch(terms[1], 0, 5))
		group := e.newGroup()
		e.commitAt(group, terms[0].Key, 3)
		e.ok(e.store.DeleteTopic(e.ctx, topic.ID))

		e.equal("partitions", e.partitionCount(topic.ID), 0)
		e.equal("offsets", len(must(e.store.FetchOffsets(e.ctx, []string{group.name}))(e)[0]), 0)
		e.equal("sizes", len(must(e.store.LogSizes(e.ctx, []uuid.UUID{topic.ID}))(e)), 0)
		e.wantErr(must(e.store.Read(e.ctx, []metadata.ReadRequest{{Key: terms[0].Key, MaxBytes: 1}}))(e)[0].Err, metadata.ErrUnknownTopic)
		e.wantErr(must(e.store.FindTimestamp(e.ctx, []metadata.TimestampRequest{{Key: terms[0].Key}}))(e)[0].Err, metadata.ErrUnknownTopic)
		e.wantErr(must(e.store.EpochEnds(e.ctx, []metadata.EpochRequest{{Key: terms[0].Key}}))(e)[0].Err, metadata.ErrUnknownTopic)
		_, err := e.store.DeleteRecords(e.ctx, terms[0].Key, 1)
		e.wantErr(err, metadata.ErrUnknownTopic)
		e.wantOutcome(e.commit(batch(terms[0], 1))[0], metadata.UnknownPartition, -1)
		r := must(e.store.Acquire(e.ctx, e.agent, ttl, keys(topic)[:1]))(e)
		e.wantErr(r[0].Err, lease.ErrUnknownKey)
		e.equal("renewed", len(must(e.store.Renew(e.ctx, e.agent, ttl, terms))(e)), 0)
		e.wantErr(e.store.DeleteTopic(e.ctx, topic.ID), metadata.ErrUnknownTopic)
		e.wantErr(e.store.AddPartitions(e.ctx, topic.ID, 9), metadata.ErrUnknownTopic)
		e.wantErr(e.store.AlterTopicConfigs(e.ctx, topic.ID, metadata.ConfigChange{}), metadata.ErrUnknownTopic)
	}},
	{"a name can be used again after a deletion, and begins empty", func(e *env) {
		topic, pr := e.newTopic(1), e.newProducer()
		e.commit(pr.batch(e.lead(e.agent, ttl, keys(topic)...)[0], 0, 5))
		e.ok(e.store.DeleteTopic(e.ctx, topic.ID))
		again := topic
		again.ID = uuid.New()
		e.ok(e.store.CreateTopic(e.ctx, again))
		p := e.lead(e.agent, ttl, keys(again)...)[0]
		e.wantOutcome(e.commit(pr.batch(p, 0, 5))[0], metadata.Committed, 0)
		if _, there := e.findTopic(topic.ID); there {
			e.Error("the deleted topic is there")
		}
	}},
	{"partitions are added and not taken away", func(e *env) {
		topic := e.newTopic(2)
		p := e.lead(e.agent, ttl, keys(topic)...)[1]
		e.commit(batch(p, 4))
		e.ok(e.store.AddPartitions(e.ctx, topic.ID, 5))
		e.equal("partitions", e.partitionCount(topic.ID), 5)
		got, _ := e.findTopic(topic.ID)
		e.equal("partitions", got.Partitions, int32(5))
		e.equal("high watermark", e.high(p.Key), int64(4))
		for _, total := range []int32{5, 4, 0, -1} {
			e.wantErr(e.store.AddPartitions(e.ctx, topic.ID, total), metadata.ErrInvalidPartitions)
		}
		e.wantErr(e.store.AddPartitions(e.ctx, uuid.New(), 5), metadata.ErrUnknownTopic)
		e.wantErr(e.store.DeleteTopic(e.ctx, uuid.New()), metadata.ErrUnknownTopic)
	}},
}

var configTests = []test{
	{"a topic's configs are set, removed and replaced", func(e *env) {
		topic := e.newTopic(1)
		for _, c := range []struct {
			change metadata.ConfigChange
			want   map[string]string
		}{
			{metadata.ConfigChange{Values: map[string]*string{"a": new("1"), "b": new("")}}, map[string]string{"a": "1", "b": ""}},
			{metadata.ConfigChange{Values: map[string]*string{"a": nil, "c": new("3"), "x": nil}}, map[string]string{"b": "", "c": "3"}},
			{metadata.ConfigChange{Values: map[string]*string{"d": new("4")}, Replace: true}, map[string]string{"d": "4"}},
			{metadata.ConfigChange{Replace: true}, nil},
		} {
			e.ok(e.store.AlterTopicConfigs(e.ctx, topic.ID, c.change))
			got, _ := e.findTopic(topic.ID)
			e.equal("configs", got.Configs, c.want)
		}
		e.wantErr(e.store.AlterTopicConfigs(e.ctx, uuid.New(), metadata.ConfigChange{}), metadata.ErrUnknownTopic)
	}},
	{"the cluster's configs come with every topology", func(e *env) {
		before := must(e.store.Topology(e.ctx, 0))(e)
		name := "config-" + uuid.NewString()
		e.ok(e.store.AlterClusterConfigs(e.ctx, metadata.ConfigChange{Values: map[string]*string{name: new("on")}}))
		after := must(e.store.Topology(e.ctx, before.Version))(e)
		if after.Version <= before.Version {
			e.Errorf("version %d after %d", after.Version, before.Version)
		}
		want := maps.Clone(before.Configs)
		if want == nil {
			want = map[string]string{}
		}
		want[name] = "on"
		e.equal("configs", after.Configs, want)
		unchanged := must(e.store.Topology(e.ctx, after.Version))(e)
		e.equal("configs", unchanged.Configs, want)
		e.ok(e.store.AlterClusterConfigs(e.ctx, metadata.ConfigChange{Values: map[string]*string{name: nil}}))
		e.equal("configs", must(e.store.Topology(e.ctx, 0))(e).Configs, before.Configs)
	}},
}
