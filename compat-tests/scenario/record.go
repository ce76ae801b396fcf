package scenario

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

// Codecs are Kafka's compression codecs, by the names that compression.type gives them, in the order of their numbers
// in a batch's attributes.
var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// Header is a record header. A nil Value is null; an empty one is not.
type Header struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

// Record is a record as a client sees it. A nil Key or Value is null; an empty one is not. Its JSON form is what
// the clients of other languages read and write.
type Record struct {
	Partition int32    `json:"partition"`
	Offset    int64    `json:"offset"`
	Timestamp int64    `json:"timestamp"` // milliseconds since 1970; ClientTime: whatever the producer's clock says
	Key       []byte   `json:"key"`
	Value     []byte   `json:"value"`
	Headers   []Header `json:"headers"`
	// EmptyAsNull: who read it gives what is empty as null.
	EmptyAsNull bool `json:"-"`
}

// ClientTime stands for a timestamp that the producer's client takes from its clock.
const ClientTime int64 = -1

// difference says how two records differ, or returns the empty string.
func difference(want, got Record) string {
	var parts []string
	note := func(field string, want, got any) {
		parts = append(parts, fmt.Sprintf("%s: want %v, got %v", field, want, got))
	}
	if want.Timestamp != got.Timestamp {
		note("timestamp", want.Timestamp, got.Timestamp)
	}
	same := same
	if got.EmptyAsNull {
		same = bytes.Equal
	}
	if !same(want.Key, got.Key) {
		note("key", brief(want.Key), brief(got.Key))
	}
	if !same(want.Value, got.Value) {
		note("value", brief(want.Value), brief(got.Value))
	}
	equal := func(a, b Header) bool { return a.Key == b.Key && same(a.Value, b.Value) }
	if !slices.EqualFunc(want.Headers, got.Headers, equal) {
		note("headers", want.Headers, got.Headers)
	}
	return strings.Join(parts, "; ")
}

// same compares bytes and tells null from empty.
func same(a, b []byte) bool {
	return (a == nil) == (b == nil) && bytes.Equal(a, b)
}

func brief(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case len(b) > 64:
		return fmt.Sprintf("%q… (%d bytes, CRC %08x)", b[:32], len(b), crc32.ChecksumIEEE(b))
	default:
		return fmt.Sprintf("%q", b)
	}
}
