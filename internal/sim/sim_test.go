package sim_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/internal/sim"
)

// The environment says what is to be done; without any of it, the tests try few
// seeds.
//
//	SIM_SEEDS    how many seeds TestSeeds tries
//	SIM_FIRST    the first of them; by default one that follows from the time
//	SIM_WORKERS  how many processes try them; by default one for each CPU
//	SIM_SEED     the one seed that TestReplay runs, SIM_TIMES times (once)
//	SIM_MUTANT   with this mistake in the stores
//	SIM_EXACT    is set where histories follow from their seeds
var (
	seeds   = fromEnv("SIM_SEEDS", 0)
	first   = fromEnv("SIM_FIRST", uint64(time.Now().Unix())<<20)
	workers = fromEnv("SIM_WORKERS", uint64(runtime.NumCPU()))
	exact   = os.Getenv("SIM_EXACT") != ""
)

func fromEnv(name string, otherwise uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return otherwise
}

// Without SIM_SEEDS, TestSeeds tries the seeds up to fixedSeeds, and random ones
// for a while, and TestMutants some mutants. With the race detector a seed takes
// ten times as long and more.
var (
	fixedSeeds  = uint64(8)
	randomFor   = 5 * time.Second
	someMutants = []sim.Mutant{sim.OffsetZero, sim.NoDeduplication, sim.StaleReads}
)

// workerVariable tells a process that it is a worker.
const workerVariable = "SIM_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(workerVariable) != "" {
		debug.SetGCPercent(-1) // it would stop goroutines where they are; see run
	}
	os.Exit(m.Run())
}

// job is what a worker does: tries the fixed seeds, then Count others from First
// on, or as many as it can in a time.
type job struct {
	Fixed              []uint64
	First, Step, Count uint64
	For                time.Duration // 0: no limit
	Mutant             sim.Mutant
	Stop               bool // at the first seed that finds something
}

// seeds yields the seeds of a job.
func (j *job) seeds(yield func(uint64) bool) {
	for _, seed := range j.Fixed {
		if !yield(seed) {
			return
		}
	}
	begun := time.Now()
	for i := range j.Count {
		if j.For > 0 && time.Since(begun) > j.For || !yield(j.First+i*j.Step) {
			return
		}
	}
}

// run runs one seed, with no garbage of others.
func run(t *testing.T, seed uint64, mutant sim.Mutant, dir string) sim.Result {
	runtime.GC()
	return sim.Run(t, seed, mutant, dir)
}

// folder is where a database is: in memory, if there is a place.
func folder(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "sim")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestWorker is no test but a process that other tests start.
func TestWorker(t *testing.T) {
	text := os.Getenv(workerVariable)
	if text == "" {
		return
	}
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		t.Fatal(err)
	}
	dir, out := folder(t), json.NewEncoder(os.Stdout)
	if exact {
		run(t, 0, sim.Healthy, dir) // what a process does once, it has done then
	}
	for seed := range j.seeds {
		fmt.Printf("seed %d\n", seed)
		r := run(t, seed, j.Mutant, dir)
		if err := out.Encode(r); err != nil {
			t.Fatal(err)
		}
		if j.Stop && len(r.Wrong) > 0 {
			return
		}
	}
}

// work starts a worker and hands over its results until it ends.
func work(t *testing.T, j job, take func(sim.Result)) error {
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestWorker$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), workerVariable+"="+string(text), "GOMAXPROCS=1", "GODEBUG="+os.Getenv("GODEBUG")+",asyncpreemptoff=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 64<<20)
	var seed, rest string
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "seed "):
			seed = line
		case strings.HasPrefix(line, "{"):
			var r sim.Result
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				return err
			}
			take(r)
		default:
			rest += line + "\n"
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w\n%s\n%s\n%s", seed, err, rest, stderr.String(), replay(strings.TrimPrefix(seed, "seed "), j.Mutant))
	}
	return nil
}

// replay is the command that runs a seed again.
func replay(seed string, mutant sim.Mutant) string {
	command := "make sim SIM_SEED=" + seed
	if mutant != sim.Healthy {
		command += fmt.Sprintf(" SIM_MUTANT=%q", string(mutant))
	}
	return "replay: " + command
}

// report reports what a seed found.
func report(t *testing.T, r sim.Result, mutant sim.Mutant) {
	t.Helper()
	t.Errorf("seed %d, history %x:\n%s\n%s\n%s", r.Seed, r.Hash, r.Trace, strings.Join(r.Wrong, "\n"), replay(fmt.Sprint(r.Seed), mutant))
}

// total is what several seeds came to.
type total struct {
	mu         sync.Mutex
	seeds      int
	wrong      int
	virtual    time.Duration
	operations sim.Operations
	faults     map[string]int64
}

func (s *total) add(r sim.Result) (seeds int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seeds++
	s.wrong += len(r.Wrong)
	s.virtual += r.Virtual
	s.operations.Add(r.Operations)
	if s.faults == nil {
		s.faults = make(map[string]int64)
	}
	for kind, n := range r.Faults {
		s.faults[kind] += n
	}
	return s.seeds
}

func (s *total) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d seeds, %s of virtual time\n", s.seeds, s.virtual.Round(time.Second))
	fmt.Fprintf(&b, "%d operations: %d records sent, %d records polled, %d requests; and %d records in final reads\n",
		s.operations.Total(), s.operations.Sent, s.operations.Polled, s.operations.Requests, s.operations.Final)
	fmt.Fprintf(&b, "%d records committed by another agent than the one that took them in\n", s.operations.Borrowed)
	for _, kind := range slices.Sorted(maps.Keys(s.faults)) {
		fmt.Fprintf(&b, "%12d %s\n", s.faults[kind], kind)
	}
	fmt.Fprintf(&b, "%d anomalies", s.wrong)
	return b.String()
}

// TestSeeds tries seeds: worlds in which nothing may go wrong.
func TestSeeds(t *testing.T) {
	var jobs []job
	n := workers
	switch {
	case seeds > 0:
		n = min(n, seeds)
		for i := range n {
			jobs = append(jobs, job{First: first + i, Step: n, Count: (seeds - i + n - 1) / n})
		}
	default:
		n = min(n, 2)
		for i := range n {
			j := job{First: first + i, Step: n, Count: 1 << 20, For: randomFor}
			for seed := 1 + i; seed <= fixedSeeds; seed += n {
				j.Fixed = append(j.Fixed, seed)
			}
			jobs = append(jobs, j)
		}
	}
	t.Logf("seeds from %d on", first)
	var sum total
	begun := time.Now()
	var all sync.WaitGroup
	for _, j := range jobs {
		all.Go(func() {
			err := work(t, j, func(r sim.Result) {
				if len(r.Wrong) > 0 {
					report(t, r, sim.Healthy)
				}
				if n := sum.add(r); n%1000 == 0 {
					fmt.Printf("%s: %s\n", time.Now().Format(time.TimeOnly), &sum)
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	took := time.Since(begun)
	if seeds == 0 && sum.operations.Borrowed == 0 {
		t.Error("no record was committed by another agent than the one that took it in")
	}
	t.Logf("%s\n%s, %.0f seeds a minute", &sum, took.Round(time.Second), float64(sum.seeds)/took.Minutes())
}

// TestMutants shows that the simulation finds each of these mistakes in the
// stores, or without SIM_SEEDS one of them.
func TestMutants(t *testing.T) {
	mutants := sim.Mutants
	if seeds == 0 {
		mutants = someMutants
	}
	for _, m := range mutants {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			tried, found := 0, sim.Result{}
			err := work(t, job{First: 1, Step: 1, Count: 400, Mutant: m, Stop: true}, func(r sim.Result) {
				tried++
				found = r
			})
			switch {
			case err != nil:
				t.Error(err)
			case len(found.Wrong) == 0:
				t.Errorf("not found by %d seeds", tried)
			default:
				t.Logf("found by the %d. seed: %s", tried, found.Wrong[0])
			}
		})
	}
}

// TestSameHistory runs seeds twice, in different processes and orders. With the
// changes to the standard library that make sim makes, most have the same history;
// the package's comment says which may not.
func TestSameHistory(t *testing.T) {
	if !exact {
		return
	}
	const seeds, mayDiffer = 20, 6
	var histories [2]map[uint64]uint64
	var both sync.WaitGroup
	for i := range histories {
		histories[i] = make(map[uint64]uint64)
		j := job{First: 1, Step: 1, Count: seeds}
		if i == 1 {
			j = job{First: seeds, Step: ^uint64(0), Count: seeds}
		}
		both.Go(func() {
			if err := work(t, j, func(r sim.Result) { histories[i][r.Seed] = r.Hash }); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	differ := 0
	for seed, history := range histories[0] {
		if histories[1][seed] != history {
			differ++
		}
	}
	t.Logf("%d of %d seeds had another history the second time", differ, len(histories[0]))
	if differ > mayDiffer {
		t.Error("histories do not follow from their seeds")
	}
}

// TestReplay runs the one seed of SIM_SEED.
func TestReplay(t *testing.T) {
	seed, ok := os.LookupEnv("SIM_SEED")
	if !ok {
		return
	}
	mutant := sim.Mutant(os.Getenv("SIM_MUTANT"))
	err := work(t, job{First: fromEnv("SIM_SEED", 0), Count: fromEnv("SIM_TIMES", 1), Mutant: mutant}, func(r sim.Result) {
		t.Logf("seed %s: history %x, %+v", seed, r.Hash, r.Operations)
		if len(r.Wrong) > 0 {
			report(t, r, mutant)
		}
	})
	if err != nil {
		t.Error(err)
	}
}
