package batch_test

import (
	"fmt"
	"testing"

	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// BenchmarkValidate reports the rate in bytes of uncompressed records.
func BenchmarkValidate(b *testing.B) {
	for _, codec := range codecs {
		for _, size := range []int{16 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%v/%dKiB", codec, size>>10), func(b *testing.B) {
				client := batchtest.Build(batchtest.Options{Records: records(size>>10, 1<<10), Codec: codec})
				rules := kafkaDefaults()
				rules.MaxMessageBytes = 2 << 20
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := batch.Validate(client, rules); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkValidateSmallRecords is the case in which records, not bytes, cost.
func BenchmarkValidateSmallRecords(b *testing.B) {
	client := batchtest.Build(batchtest.Options{Records: records(10_000, 20)})
	rules := kafkaDefaults()
	b.SetBytes(int64(len(client)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := batch.Validate(client, rules); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkConvertToLz4(b *testing.B) {
	client := batchtest.Build(batchtest.Options{Records: records(64, 1<<10)})
	rules := kafkaDefaults()
	rules.CompressionType = batch.CompressionLz4
	b.SetBytes(int64(len(client)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := batch.Validate(client, rules); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStamp(b *testing.B) {
	stored := batchtest.Of("value")
	for b.Loop() {
		stored.Stamp(1<<40, 7)
	}
}
