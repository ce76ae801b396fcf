package broker

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/fetch"
)

func TestFetchOptionsAreBounded(t *testing.T) {
	for name, tc := range map[string]struct {
		asked kmsg.FetchRequest
		want  fetch.Options
	}{
		"what consumers ask for": {
			kmsg.FetchRequest{MaxWaitMillis: 500, MinBytes: 1, MaxBytes: 50 << 20, IsolationLevel: 1},
			fetch.Options{MaxWait: 500 * time.Millisecond, MinBytes: 1, MaxBytes: 50 << 20, ReadCommitted: true},
		},
		"all there is, for ever": {
			kmsg.FetchRequest{MaxWaitMillis: math.MaxInt32, MinBytes: math.MaxInt32, MaxBytes: math.MaxInt32},
			fetch.Options{MaxWait: maxFetchWait, MinBytes: maxFetchBytes, MaxBytes: maxFetchBytes},
		},
	} {
		if diff := cmp.Diff(tc.want, fetchOptions(&tc.asked)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
