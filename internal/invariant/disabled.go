//go:build !invariants

package invariant

// Enabled says whether assertions are checked. It is a constant, so that the
// compiler removes what stands under it.
const Enabled = false
