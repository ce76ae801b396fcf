package broker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/broker/ingest/ingesttest"
	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/segment/objstore/objstoretest"
)

func TestAcceptedBatchesDoNotKeepARefusedFrame(t *testing.T) {
	for _, tc := range []struct {
		frame, accepted int
		copied          bool
	}{
		{frame: 1000, accepted: 900, copied: false},
		{frame: 1000, accepted: 500, copied: false},
		{frame: 1000, accepted: 499, copied: true},
	} {
		frame := bytes.Repeat([]byte{7}, tc.frame)
		half := tc.accepted / 2
		appends := []partition.Append{
			{Batch: batch.Validated{Batch: frame[:half:half]}},
			{Batch: batch.Validated{Batch: frame[half:tc.accepted:tc.accepted]}},
		}
		detach(appends, len(frame))
		stored := bytesOf(appends)
		if !bytes.Equal(stored, frame[:tc.accepted]) {
			t.Errorf("%d bytes of %d: batches have changed", tc.accepted, tc.frame)
		}
		if copied := &appends[0].Batch.Batch[0] != &frame[0]; copied != tc.copied {
			t.Errorf("%d bytes of %d: copied: %t", tc.accepted, tc.frame, copied)
		}
	}
}

func bytesOf(appends []partition.Append) (all []byte) {
	for i := range appends {
		all = append(all, appends[i].Batch.Batch...)
	}
	return all
}

// unseen is who looks at commits and does nothing about it.
type unseen struct{}

func (unseen) Committed([]byte, []metadata.PartitionExtent, []int64) {}

// tableOf makes the table of partitions of an agent.
func tableOf(t *testing.T, agentID string) *partition.Table {
	store, reg, log := ingesttest.NewStore(), prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	leases := lease.NewManager(store, agentID, lease.DefaultConfig(), lease.NewMetrics(reg), log)
	pool := ingest.NewPool(ingest.DefaultConfig(), ingest.Environment{
		AgentID: agentID, Session: uuid.New(), Leases: leases, Objects: objstoretest.NewMemory(), Committer: store,
		Observer: unseen{}, Metrics: ingest.NewMetrics(reg), Log: log,
	})
	table := partition.NewTable(partition.DefaultConfig(), leases, pool)
	for _, run := range []func(context.Context) error{leases.Run, pool.Run, table.Run} {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = run(ctx) }()
		t.Cleanup(func() { cancel(); <-ended })
	}
	return table
}

// A batch that is sent home is missing in its stream: what is in flight behind it is not
// let in, though its client is served by then.
func TestNothingPassesABatchThatIsSentHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newZonesCluster(t, []string{"a", "b"}, 1)
		b := c.at(1)
		b.Partitions = tableOf(t, b.AgentID)
		produce := func(sequence int32) error {
			v := ingesttest.Batch(t, "", 7, 0, sequence, 1)
			resolve, from := b.resolve(t.Context()), b.visit(from("app,zone=b"))
			ref := topicRef{byID: true, id: zoneKey(0).TopicID}
			p := kmsg.NewProduceRequestTopicPartition()
			p.Records = v.Batch
			a, err := stageAppend(resolve, &from, ref, &p, 13, time.Now())
			if err != nil {
				return err
			}
			return b.Partitions.Append([]partition.Append{a}).Wait(t.Context())[0].Err
		}
		sentHome := func(sequence int32) {
			if err := produce(sequence); !errors.Is(err, kerr.NotLeaderForPartition) {
				t.Errorf("batch %d: %v", sequence, err)
			}
		}
		sentHome(0)
		<-time.After(time.Second)
		sentHome(1)
		sentHome(2)
		for sequence := range int32(3) {
			if err := produce(sequence); err != nil {
				t.Errorf("batch %d, when it is sent again: %v", sequence, err)
			}
		}
	})
}
