//go:build unix

package protocol

import (
	"math"
	"syscall"
)

// maxDescriptors is how many files and connections the process may have open. Go
// has raised the soft limit to the hard one when it started.
func maxDescriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt
	}
	return int(min(uint64(limit.Cur), math.MaxInt))
}
