package compattests

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/internal/check"
)

// mixGroups are the ways to be a member, names in chaosProtocols, each with a group of its own.
var mixGroups = []string{"cooperative", "consumer"}

func (r *mixRound) groupName(protocol string) string { return r.topic + "-" + protocol }

// startReaders sets all that reads to work until ctx ends.
func (r *mixRound) startReaders(t *testing.T, ctx context.Context) {
	t.Helper()
	watcher := r.client(t, kgo.RequestTimeoutOverhead(3*time.Second))
	admin := kadm.NewClient(watcher)
	random := r.mix.derive()
	r.consuming.Go(func() { r.watchAgents(ctx, watcher, random) })
	r.consuming.Go(func() { r.watchPositions(ctx, admin) })
	for range r.mix.size.wanderers {
		w := wanderer{
			mixRound: r, client: r.client(t, kgo.RequestTimeoutOverhead(3*time.Second)), poller: r.recorder.Poller(),
			random: r.mix.derive(), positions: make([]int64, r.mix.size.partitions),
		}
		for p := range w.positions {
			w.poller.Begin(int32(p), 0)
		}
		r.consuming.Go(func() { w.wander(ctx) })
	}
	for _, protocol := range mixGroups {
		for seat := range r.mix.size.seats {
			random := r.mix.derive()
			r.consuming.Go(func() { r.seat(ctx, protocol, seat == 0, random) })
		}
	}
}

// watchAgents lists the ends of all partitions at one agent after the other.
func (r *mixRound) watchAgents(ctx context.Context, client *kgo.Client, random *rand.Rand) {
	for ctx.Err() == nil {
		r.listEnds(ctx, client, random.IntN(len(r.mix.agents)))
		pause(ctx, 100*time.Millisecond)
	}
}

func (r *mixRound) listEnds(ctx context.Context, client *kgo.Client, i int) {
	const latest = -1
	request := kmsg.NewPtrListOffsetsRequest()
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic = r.topic
	for p := range r.mix.size.partitions {
		partition := kmsg.NewListOffsetsRequestTopicPartition()
		partition.Partition, partition.Timestamp = p, latest
		topic.Partitions = append(topic.Partitions, partition)
	}
	request.Topics = append(request.Topics, topic)
	agent, invoked := r.mix.agent(i), r.recorder.Now()
	answer, err := client.Broker(int(r.mix.nodes[i])).Request(ctx, request)
	if err != nil || agent != r.mix.agent(i) {
		return
	}
	for _, topic := range answer.(*kmsg.ListOffsetsResponse).Topics {
		for _, p := range topic.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				r.mix.counts.add(1, "list offsets: %v", err)
				continue
			}
			r.recorder.End(check.End{Source: check.Listed, Agent: agent, Partition: p.Partition, Offset: p.Offset, Invoked: invoked})
		}
	}
}

// wanderer is a consumer of all partitions that reads on at one agent after the other, whoever leads.
type wanderer struct {
	*mixRound
	client    *kgo.Client
	poller    *check.Poller
	random    *rand.Rand
	positions []int64
}

func (w *wanderer) wander(ctx context.Context) {
	for ctx.Err() == nil {
		i := w.random.IntN(len(w.mix.agents))
		for range 1 + w.random.IntN(20) {
			if err := w.fetch(ctx, i); err != nil {
				pause(ctx, 100*time.Millisecond)
				break
			}
		}
	}
}

// fetch asks an agent for what follows. An error is no answer.
func (w *wanderer) fetch(ctx context.Context, i int) error {
	metadata, err := w.client.RequestCachedMetadata(ctx, metadataOf(w.topic), time.Minute)
	if err != nil {
		return fmt.Errorf("look the topic up: %w", err)
	}
	if len(metadata.Topics) != 1 || metadata.Topics[0].ErrorCode != 0 {
		return errors.New("the topic is not known yet")
	}
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = w.topic, metadata.Topics[0].TopicID
	for p, offset := range w.positions {
		partition := kmsg.NewFetchRequestTopicPartition()
		partition.Partition, partition.FetchOffset, partition.PartitionMaxBytes = int32(p), offset, 1<<20
		topic.Partitions = append(topic.Partitions, partition)
	}
	request := kmsg.NewPtrFetchRequest()
	request.MaxBytes, request.MinBytes, request.MaxWaitMillis = 8<<20, 1, 500
	request.Topics = append(request.Topics, topic)
	agent, invoked := w.mix.agent(i), w.recorder.Now()
	answer, err := w.client.Broker(int(w.mix.nodes[i])).Request(ctx, request)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	if agent != w.mix.agent(i) {
		return errors.New("the agent was restarted meanwhile")
	}
	response := answer.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	for _, t := range response.Topics {
		for _, p := range t.Partitions {
			w.take(agent, invoked, &p)
		}
	}
	return nil
}

func metadataOf(topic string) *kmsg.MetadataRequest {
	request := kmsg.NewPtrMetadataRequest()
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = &topic
	request.Topics = append(request.Topics, asked)
	return request
}

// take notes what an agent answered of a partition, and goes on behind it.
func (w *wanderer) take(agent int32, invoked check.Instant, p *kmsg.FetchResponseTopicPartition) {
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		w.mix.counts.add(1, "fetch: %v", err)
		if errors.Is(err, kerr.OffsetOutOfRange) {
			w.problem(fmt.Errorf("%s agent %d says that offset %d of %s-%d is out of range", stamp(), agent, w.positions[p.Partition], w.topic, p.Partition))
		}
		return
	}
	w.recorder.End(check.End{Source: check.Fetched, Agent: agent, Partition: p.Partition, Offset: p.HighWatermark, Invoked: invoked})
	fetched, _ := kgo.ProcessFetchPartition(
		kgo.ProcessFetchPartitionOpts{Offset: w.positions[p.Partition], Topic: w.topic, Partition: p.Partition}, p, kgo.DefaultDecompressor(), nil)
	if fetched.Err != nil {
		w.problem(fmt.Errorf("%s what agent %d served of %s-%d at %d: %w", stamp(), agent, w.topic, p.Partition, w.positions[p.Partition], fetched.Err))
		return
	}
	w.poller.Poll(invoked, agent, p.Partition, w.observe(fetched.Records))
	if n := len(fetched.Records); n > 0 {
		w.positions[p.Partition] = fetched.Records[n-1].Offset + 1
	}
}

// seat is one place in a group: a member, and when that has left, the next. That of the first place stays.
func (r *mixRound) seat(ctx context.Context, protocol string, stays bool, random *rand.Rand) {
	for ctx.Err() == nil {
		alive, leave := ctx, context.CancelFunc(func() {})
		if !stays {
			alive, leave = context.WithTimeout(ctx, time.Duration(10+random.IntN(50))*time.Second)
		}
		err := r.beMember(alive, protocol)
		leave()
		if err != nil {
			r.problem(err)
			return
		}
	}
}

// beMember polls and commits until ctx ends, and leaves the group.
func (r *mixRound) beMember(ctx context.Context, protocol string) error {
	poller, group := r.recorder.Poller(), r.groupName(protocol)
	options := append(r.member(poller), chaosProtocols[protocol]...)
	client, err := r.newClient(append(options,
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(r.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		kgo.SessionTimeout(45*time.Second), kgo.RebalanceTimeout(20*time.Second), kgo.HeartbeatInterval(time.Second),
		kgo.FetchMaxWait(500*time.Millisecond))...)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	for ctx.Err() == nil {
		polling, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		invoked := r.recorder.Now()
		fetches := client.PollRecords(polling, 1000)
		cancel()
		r.polled(poller, invoked, fetches)
		r.commit(context.WithoutCancel(ctx), client, group)
		client.AllowRebalance()
	}
	return nil
}

// polled notes what a member saw. Errors are what the client retries, but for those that tell of a loss.
func (r *mixRound) polled(poller *check.Poller, invoked check.Instant, fetches kgo.Fetches) {
	fetches.EachError(func(_ string, partition int32, err error) {
		switch lost, isLost := errors.AsType[*kgo.ErrDataLoss](err); {
		case isLost:
			r.problem(fmt.Errorf("%s a member was told of a loss in %s-%d: %w", stamp(), r.topic, partition, lost))
		case !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled):
			r.mix.counts.add(1, "poll: %.60v", err)
		}
	})
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) > 0 {
			poller.Poll(invoked, check.NoAgent, p.Partition, r.observe(p.Records))
		}
	})
}

// commit commits what was polled, and notes of each partition what became of it. The client tries again by itself, so
// an error leaves open whether an earlier try arrived.
func (r *mixRound) commit(ctx context.Context, client *kgo.Client, group string) {
	offsets := client.UncommittedOffsets()[r.topic]
	if len(offsets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	acked := make(map[int32]bool)
	invoked := r.recorder.Now()
	client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{r.topic: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
			if err != nil {
				r.mix.counts.add(1, "commit: %.60v", err)
				return
			}
			for _, topic := range response.Topics {
				for _, p := range topic.Partitions {
					acked[p.Partition] = p.ErrorCode == 0
					if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
						r.mix.counts.add(1, "commit: %v", err)
					}
				}
			}
		})
	for partition, offset := range offsets {
		c := check.Commit{Group: group, Partition: partition, Offset: offset.Offset, Invoked: invoked}
		if acked[partition] {
			c.Outcome = check.Acked
		}
		r.recorder.Commit(c)
	}
}

// watchPositions asks for the committed positions of the groups, time and again.
func (r *mixRound) watchPositions(ctx context.Context, admin *kadm.Client) {
	for ctx.Err() == nil {
		for _, protocol := range mixGroups {
			r.positions(ctx, admin, r.groupName(protocol))
		}
		pause(ctx, 500*time.Millisecond)
	}
}

// positions notes the committed positions of a group, and returns them; nil if nobody answered.
func (r *mixRound) positions(ctx context.Context, admin *kadm.Client, group string) map[int32]int64 {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	invoked := r.recorder.Now()
	offsets, err := admin.FetchOffsets(ctx, group)
	if err := errors.Join(err, offsets.Error()); err != nil {
		return nil
	}
	positions := make(map[int32]int64)
	for p := range r.mix.size.partitions {
		positions[p] = check.NoOffset
		if o, ok := offsets.Lookup(r.topic, p); ok {
			positions[p] = o.At
		}
		r.recorder.Position(check.Position{Group: group, Partition: p, Offset: positions[p], Agent: check.NoAgent, Invoked: invoked})
	}
	return positions
}

// awaitGroups returns when each group has committed the ends of all partitions.
func (r *mixRound) awaitGroups(ctx context.Context, t *testing.T, admin *kadm.Client, ends kadm.ListedOffsets) {
	t.Helper()
	for _, protocol := range mixGroups {
		group := r.groupName(protocol)
		for {
			var behind []string
			positions := r.positions(ctx, admin, group)
			ends.Each(func(end kadm.ListedOffset) {
				if at, ok := positions[end.Partition]; !ok || max(at, 0) < end.Offset {
					behind = append(behind, fmt.Sprintf("%d of %d of partition %d", at, end.Offset, end.Partition))
				}
			})
			if len(behind) == 0 {
				break
			}
			if ctx.Err() != nil {
				t.Errorf("%s group %s has committed %v", stamp(), group, behind)
				break
			}
			pause(ctx, 200*time.Millisecond)
		}
	}
}
