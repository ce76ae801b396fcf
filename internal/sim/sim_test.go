package sim_test

import (
	"os"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/internal/sim"
)

func TestOne(t *testing.T) {
	dir, _ := os.MkdirTemp("/dev/shm", "sim")
	defer os.RemoveAll(dir)
	var ops sim.Operations
	t0 := time.Now()
	for seed := range uint64(100) {
		r := sim.Run(t, seed, sim.Healthy, dir)
		ops.Sent += r.Operations.Sent
		ops.Polled += r.Operations.Polled
		for _, x := range r.Wrong {
			t.Error(seed, x)
		}
		if len(r.Wrong) > 0 {
			t.Log(r.Trace)
			break
		}
	}
	t.Log(time.Since(t0), ops)
}

func TestMutants(t *testing.T) {
	dir, _ := os.MkdirTemp("/dev/shm", "sim")
	defer os.RemoveAll(dir)
	for _, m := range sim.Mutants {
		t.Run(string(m), func(t *testing.T) {
			for seed := range uint64(60) {
				r := sim.Run(t, seed, m, dir)
				if len(r.Wrong) > 0 {
					t.Log("found by seed", seed, len(r.Wrong), r.Wrong[0])
					return
				}
			}
			t.Error("not found")
		})
	}
}
