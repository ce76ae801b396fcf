package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Steady produces rate records a second in all, evenly to all partitions of the topics, each of which has one producer,
// on a schedule that does not wait for acknowledgements. It returns what OpenLoop does.
func (l Load) Steady(ctx context.Context, topics []string, rate int, warmUp, duration time.Duration) ([]time.Duration, error) {
	partitions := len(topics) * l.Partitions
	return l.openLoop(ctx, rate, warmUp, duration, func(producer, n int) (string, int32) {
		at := (producer + n*l.Producers) % partitions
		return topics[at%len(topics)], int32(at / len(topics))
	})
}

// Consume consumes the topics, from their ends, as one group with as many members as there are producers, which commit
// what they have consumed every five seconds, until ctx ends.
func (l Load) Consume(ctx context.Context, group string, topics []string) error {
	return l.forEachProducer(func(client *kgo.Client, _ int) error {
		for {
			fetches := client.PollFetches(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err := fetches.Err(); err != nil {
				return fmt.Errorf("consume: %w", err)
			}
		}
	},
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
		kgo.AutoCommitInterval(5*time.Second),
	)
}
