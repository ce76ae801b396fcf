package compattests

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/clients"
	"github.com/streamhouse/streamhouse/compat-tests/scenario"
	"github.com/streamhouse/streamhouse/compat-tests/wire"
)

// creation produces to a topic that is not there, which creates it with a single partition. Some clients, as kafka-go,
// give up if it is not there at once.
func (r *clientRun) creation(ctx context.Context) error {
	topic := "created-" + r.Name()
	var log scenario.Log
	for round := range 2 {
		few := slices.DeleteFunc(scenario.Few(r.seed, round, 10, r.Profile()), func(record scenario.Record) bool {
			return record.Partition != 0
		})
		var acked []int64
		err := settle(ctx, func() (err error) {
			acked, err = r.Produce(ctx, topic, scenario.Codecs[0], few)
			if err != nil && r.target.name == "apachekafka" {
				return notYet{err} // it answers before the topic is there
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("produce: %w", err)
		}
		if appended := log.Append(few); acked != nil && !slices.Equal(acked, appended) {
			return fmt.Errorf("acknowledged at the offsets %v, want %v", acked, appended)
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(r.target.bootstrap()...))
	if err != nil {
		return err
	}
	defer client.Close()
	brokers, err := wire.Brokers(ctx, client)
	if err != nil {
		return err
	}
	var served wire.Log
	err = settle(ctx, func() (err error) {
		served, err = wire.Fetch(ctx, client, brokers[0], topic, 0, int64(log.Len()))
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return notYet{err} // it may not know yet what another broker has created
		}
		return err
	})
	if err != nil {
		return err
	}
	var read []scenario.Record
	for _, record := range served.Records {
		read = append(read, clients.FromFranz(record))
	}
	return errors.Join(log.AdoptTimestamps(read, 0, read[len(read)-1].Timestamp), log.Compare(read))
}
