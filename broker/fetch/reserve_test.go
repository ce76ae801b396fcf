package fetch_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/broker/fetch"
)

// A fetch reserves what it is going to read, once there is something, and reads
// no more than it was given.
func TestFetchReadsWhatItHasReserved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	w.lead(key(0))
	w.here(sized(0, 1000, 1000, 1000))
	whole := int64(len(w.fetch(key(0), 0, ample).Records))
	var asked []int64
	given := int64(1 << 30)
	o := ample
	o.Reserve = func(n int64) int64 {
		asked = append(asked, n)
		return min(n, given)
	}
	for _, tc := range []struct {
		name                string
		given, asked, bytes int64
		offset              int64
	}{
		{"all of it", whole, whole, whole, 0},
		{"a part", whole - 1, whole, whole / 3 * 2, 0},
		{"one batch in any case", 1, whole, whole / 3, 0},
		{"nothing to read", whole, 0, 0, 3},
	} {
		asked, given = nil, tc.given
		res := w.fetch(key(0), tc.offset, o)
		if res.Err != nil || int64(len(res.Records)) != tc.bytes {
			t.Errorf("%s: %d bytes, %v, want %d", tc.name, len(res.Records), res.Err, tc.bytes)
		}
		if tc.asked == 0 && len(asked) > 0 || tc.asked > 0 && (len(asked) != 1 || asked[0] != tc.asked) {
			t.Errorf("%s: reserved %v, want %d", tc.name, asked, tc.asked)
		}
	}
}
