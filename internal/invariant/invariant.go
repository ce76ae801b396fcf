// Package invariant states, in the code, what must always hold. Tests build with
// the tag "invariants", which makes a broken one a panic where it broke. Without
// the tag an assertion costs nothing and does nothing: what must be refused in
// production is an error, not an assertion.
//
// A check that costs more than a comparison goes under Enabled:
//
//	if invariant.Enabled {
//		invariant.Assert(sorted(rows), "rows out of order: %v", rows)
//	}
package invariant

import "fmt"

// Assert panics if Enabled and condition is false. The message says what was
// found, in the form of fmt.Sprintf.
func Assert(condition bool, format string, args ...any) {
	if Enabled && !condition {
		panic("invariant broken: " + fmt.Sprintf(format, args...))
	}
}
