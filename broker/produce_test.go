package broker

import (
	"bytes"
	"testing"

	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/protocol/batch"
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
