package batch

import "fmt"

// Codec is the compression of a batch's records, as the attributes spell it.
type Codec int8

// The codecs of Kafka.
const (
	CodecNone   Codec = 0
	CodecGzip   Codec = 1
	CodecSnappy Codec = 2
	CodecLz4    Codec = 3
	CodecZstd   Codec = 4 // KIP-110, Produce and Fetch from version 7 and 10
)

var codecNames = [...]string{CodecNone: "none", CodecGzip: "gzip", CodecSnappy: "snappy", CodecLz4: "lz4", CodecZstd: "zstd"}

// String is the codec's name in Kafka.
func (c Codec) String() string {
	if !c.known() {
		return fmt.Sprintf("codec(%d)", int8(c))
	}
	return codecNames[c]
}

func (c Codec) known() bool { return c >= CodecNone && c <= CodecZstd }

// CompressionType is a value of the topic configuration compression.type. The
// zero value means the same as [CompressionProducer].
type CompressionType string

// The values of compression.type.
const (
	// CompressionProducer keeps whatever the producer chose.
	CompressionProducer     CompressionType = "producer"
	CompressionUncompressed CompressionType = "uncompressed"
	CompressionGzip         CompressionType = "gzip"
	CompressionSnappy       CompressionType = "snappy"
	CompressionLz4          CompressionType = "lz4"
	CompressionZstd         CompressionType = "zstd"
)

// target is the codec in which a batch that arrived in source is stored.
func (t CompressionType) target(source Codec) Codec {
	switch t {
	case CompressionUncompressed:
		return CodecNone
	case CompressionGzip:
		return CodecGzip
	case CompressionSnappy:
		return CodecSnappy
	case CompressionLz4:
		return CodecLz4
	case CompressionZstd:
		return CodecZstd
	}
	return source
}
