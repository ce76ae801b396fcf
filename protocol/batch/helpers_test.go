package batch_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// now is the broker's clock in all tests.
var now = time.UnixMilli(1_700_000_000_000)

var codecs = []batch.Codec{batch.CodecNone, batch.CodecGzip, batch.CodecSnappy, batch.CodecLz4, batch.CodecZstd}

// kafkaDefaults are the rules of a topic with Kafka's default configuration.
func kafkaDefaults() *batch.Rules {
	return &batch.Rules{
		MaxMessageBytes:      1 << 20,
		MaxDecompressedBytes: 16 << 20,
		TimestampBeforeMax:   batch.Unbounded,
		TimestampAfterMax:    time.Hour,
		Now:                  now,
		AllowZstd:            true,
	}
}

// text is n bytes that compress about as well as logs do.
func text(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "level=info user=%d path=/v1/items/%d took=%dms\n", r.IntN(1000), r.IntN(100000), r.IntN(500))
	}
	return b.Bytes()[:n]
}

// records are n records of size bytes each.
func records(n, size int) []batchtest.Record {
	all := text(n * size)
	rs := make([]batchtest.Record, n)
	for i := range rs {
		rs[i] = batchtest.Record{
			Key:       binary.BigEndian.AppendUint32(nil, uint32(i)),
			Value:     all[i*size : (i+1)*size],
			Timestamp: now.UnixMilli() + int64(i),
		}
	}
	return rs
}

// sameBytes tells null from empty, and spares cmp the comparison byte by byte.
var sameBytes = cmp.Comparer(func(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) })

// refusal returns the code and the error of a batch that must be refused.
func refusal(t *testing.T, b []byte, r *batch.Rules) (*kerr.Error, *batch.Error) {
	t.Helper()
	_, err := batch.Validate(b, r)
	var refused *batch.Error
	var code *kerr.Error
	if !errors.As(err, &refused) || !errors.As(err, &code) {
		t.Fatalf("error %v (%T) is no refusal", err, err)
	}
	return code, refused
}

// withRecords puts other bytes behind a batch's header.
func withRecords(b batch.Batch, records []byte) batch.Batch {
	return batchtest.Seal(append(bytes.Clone(b[:batch.HeaderSize]), records...))
}
