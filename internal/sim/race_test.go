//go:build race

package sim_test

import "time"

func init() {
	fixedSeeds, randomFor, someMutants = 2, time.Second, someMutants[:1]
}
