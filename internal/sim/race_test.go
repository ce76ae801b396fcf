//go:build race

package sim_test

import (
	"time"

	"github.com/streamhouse/streamhouse/internal/sim"
)

func init() {
	fixedSeeds, randomFor, someMutants = 2, time.Second, []sim.Mutant{sim.StaleReads}
}
