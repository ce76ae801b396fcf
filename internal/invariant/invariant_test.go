package invariant

import "testing"

func TestAssert(t *testing.T) {
	t.Parallel()
	Assert(true, "holds")
	defer func() {
		got, want := recover(), any(nil)
		if Enabled {
			want = "invariant broken: found 2, want 1"
		}
		if got != want {
			t.Errorf("recovered %v, want %v", got, want)
		}
	}()
	Assert(false, "found %d, want %d", 2, 1)
}

func TestAssertAllocatesNothingWhenItHolds(t *testing.T) {
	offset := int64(1 << 40)
	if n := testing.AllocsPerRun(100, func() { Assert(offset > 0, "offset out of order") }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
