package sim

import (
	"context"
	"fmt"
	"hash/fnv"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/streamhouse/streamhouse/internal/check"
	"github.com/streamhouse/streamhouse/metadata/metadatatest"
)

// Result is what came of a seed.
type Result struct {
	Seed       uint64
	Virtual    time.Duration
	Operations Operations
	Faults     map[string]int64
	Hash       uint64   // of the history
	Wrong      []string // what was wrong with it
	Trace      string   // of what went wrong
}

// lastID is where package uuid keeps the time of the last id. The next one has a later
// time, and so would follow from the worlds before, which had the same times.
//
//go:linkname lastID github.com/google/uuid.lastV7time
var lastID int64

// Run runs the world of a seed. The folder has its database meanwhile.
func Run(t *testing.T, seed uint64, mutant Mutant, dir string) Result {
	t.Helper()
	var result Result
	cryptotest.SetGlobalRandom(t, seed)
	lastID = 0
	synctest.Test(t, func(t *testing.T) {
		w, err := newWorld(seed, mutant, dir)
		if err != nil {
			t.Fatal(err)
		}
		w.run()
		result = w.judge()
		if err := w.db.Close(); err != nil {
			t.Error(err)
		}
	})
	return result
}

// judge says what was wrong with a world that has ended.
func (w *world) judge() Result {
	history := w.recorder.History()
	concerned := make(map[int32]bool)
	wrong := w.wrong
	for _, err := range w.db.errs {
		wrong = append(wrong, err.Error())
	}
	if err := metadatatest.Audit(context.Background(), w.db.Store); err != nil {
		wrong = append(wrong, err.Error())
	}
	for _, a := range check.Check(history, w.demands()) {
		wrong = append(wrong, a.String())
		concerned[a.Partition] = true
	}
	r := Result{Seed: w.seed, Virtual: time.Since(w.start), Operations: w.operations, Faults: w.faults.counts(), Hash: hash(&history), Wrong: wrong}
	if len(wrong) > 0 {
		if len(concerned) == 0 {
			for p := range w.settings.partitions {
				concerned[p] = true
			}
		}
		r.Trace = w.trace(concerned)
	}
	return r
}

// demands are those of a world on its history. An agent that is cut off or lost its
// lease without knowing says for as long as a lease lasts that there is nothing new.
// With records that come before the end of the log, it may give an older end still.
func (w *world) demands() check.Options {
	return check.Options{Staleness: w.settings.lease.Duration + time.Second, Legal: []check.Kind{check.StaleWatermark}}
}

// hash is a number that stands for the whole history.
func hash(h *check.History) uint64 {
	sum := fnv.New64a()
	fmt.Fprintf(sum, "%v", *h)
	return sum.Sum64()
}
