//go:build !unix

package protocol

import "math"

// maxDescriptors is how many files and connections the process may have open.
func maxDescriptors() int { return math.MaxInt }
