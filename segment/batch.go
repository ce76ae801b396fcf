package segment

import (
	"encoding/binary"
	"fmt"
)

// The fields of a record batch's header that a segment knows of. They are all
// outside or before what a broker rewrites, and fixed since magic 2.
const (
	batchLengthAt  = 8  // int32: bytes behind this field
	batchMagicAt   = 16 // int8
	batchRecordsAt = 57 // int32
	batchOverhead  = 12 // base offset and length, which the length leaves out
	batchMagic     = 2
)

// batchHeader reads the size in bytes and the record count of the batch whose
// first minBatchSize bytes are h.
func batchHeader(h []byte) (size int64, records int32, err error) {
	if magic := h[batchMagicAt]; magic != batchMagic {
		return 0, 0, fmt.Errorf("batch has magic %d, must be %d", magic, batchMagic)
	}
	size = batchOverhead + int64(int32(binary.BigEndian.Uint32(h[batchLengthAt:])))
	if size < minBatchSize {
		return 0, 0, fmt.Errorf("batch has a size of %d bytes, must be at least %d", size, minBatchSize)
	}
	records = int32(binary.BigEndian.Uint32(h[batchRecordsAt:]))
	if records < 0 {
		return 0, 0, fmt.Errorf("batch has %d records", records)
	}
	return size, records, nil
}

// countBatches walks run, which must be whole batches and nothing else.
func countBatches(run []byte) (batches, records int64, err error) {
	for len(run) > 0 {
		if len(run) < minBatchSize {
			return 0, 0, fmt.Errorf("%d bytes are left behind the last batch", len(run))
		}
		size, n, err := batchHeader(run)
		if err != nil {
			return 0, 0, err
		}
		if size > int64(len(run)) {
			return 0, 0, fmt.Errorf("batch of %d bytes is cut off after %d", size, len(run))
		}
		batches++
		records += int64(n)
		run = run[size:]
	}
	return batches, records, nil
}
