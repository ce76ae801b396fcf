package bench

import (
	"context"
	"errors"
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

// Tail consumes from the ends of all partitions of the topics with as many clients as there are producers, until ctx
// ends.
func (l Load) Tail(ctx context.Context, topics []string) error {
	return l.forEachProducer(func(client *kgo.Client, consumer int) error {
		mine := map[string]map[int32]kgo.Offset{}
		for i, topic := range topics {
			mine[topic] = map[int32]kgo.Offset{}
			for partition := range l.Partitions {
				if (partition*len(topics)+i)%l.Producers == consumer {
					mine[topic][int32(partition)] = kgo.NewOffset().AtEnd()
				}
			}
		}
		client.AddConsumePartitions(mine)
		for {
			fetches := client.PollFetches(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err := fetches.Err(); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("consume: %w", err)
			}
		}
	})
}
