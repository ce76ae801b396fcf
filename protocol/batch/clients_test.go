package batch_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// javaRecords are what testdata/java/README.md says.
func javaRecords() []batchtest.Record {
	rs := make([]batchtest.Record, 20)
	for i := range rs {
		r := &rs[i]
		r.Timestamp = 1000 + int64(i)
		if i%3 != 0 {
			r.Key = fmt.Appendf(nil, "k%d", i)
		}
		if i%7 != 0 {
			r.Value = fmt.Appendf(nil, "value %d %s", i, strings.Repeat("abc", i))
		}
		switch {
		case i%4 == 1:
			r.Headers = []batchtest.Header{{Key: "h"}}
		case i%2 == 1:
			r.Headers = []batchtest.Header{{Key: "h", Value: fmt.Appendf(nil, "v%d", i)}}
		}
	}
	return rs
}

func TestBatchesOfTheJavaClient(t *testing.T) {
	files, err := filepath.Glob("testdata/java/*.bin")
	if err != nil || len(files) != 9 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		v, err := batch.Validate(bytes.Clone(b), kafkaDefaults())
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if !bytes.Equal(v.Batch, b) {
			t.Errorf("%s: the batch was changed", file)
		}
		v.Batch = nil
		want := batch.Validated{
			RecordCount: 20, MaxTimestamp: 1019, OffsetOfMaxTimestamp: 19,
			ProducerID: 77, ProducerEpoch: 3, BaseSequence: 5, LastSequence: 24, Transactional: true,
		}
		if diff := cmp.Diff(want, v); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
		got, err := batchtest.Records(b)
		if diff := cmp.Diff(javaRecords(), got, sameBytes); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", file, err, diff)
		}
	}
}

// TestBatchesOfFranz validates what a real client sends, in the middle of a
// conversation with a broker.
func TestBatchesOfFranz(t *testing.T) {
	defer goleak.VerifyNone(t)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "topic"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	var mu sync.Mutex
	seen := make(map[batch.Codec]int32)
	var failed []error
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		rules := kafkaDefaults()
		rules.Now = time.Now()
		for _, topic := range req.(*kmsg.ProduceRequest).Topics {
			for _, partition := range topic.Partitions {
				v, err := batch.Validate(bytes.Clone(partition.Records), rules)
				if err != nil {
					failed = append(failed, err)
					continue
				}
				seen[v.Batch.Codec()] += v.RecordCount
				if v.ProducerID < 0 || !bytes.Equal(v.Batch, partition.Records) {
					failed = append(failed, fmt.Errorf("%v: producer id %d, or the batch was changed", v.Batch.Codec(), v.ProducerID))
				}
			}
		}
		return nil, nil, false
	})

	options := []kgo.CompressionCodec{
		kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
	}
	const records = 500
	for _, option := range options {
		produceWithFranz(t, cluster.ListenAddrs(), option, records)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, err := range failed {
		t.Error(err)
	}
	for _, codec := range codecs {
		if seen[codec] != records {
			t.Errorf("%v: %d records of %d", codec, seen[codec], records)
		}
	}
}

func produceWithFranz(t *testing.T, seeds []string, codec kgo.CompressionCodec, n int) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.DefaultProduceTopic("topic"),
		kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(5*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	value := text(1000)
	rs := make([]*kgo.Record, n)
	for i := range rs {
		rs[i] = &kgo.Record{Key: fmt.Appendf(nil, "%d", i), Value: value, Headers: []kgo.RecordHeader{{Key: "h", Value: value[:i%10]}}}
	}
	if err := client.ProduceSync(ctx, rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}
