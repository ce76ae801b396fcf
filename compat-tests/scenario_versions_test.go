package compattests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/internal/testdb"
)

// Agents that are not all alike, and a database with another clock than they have.

// buildLimit bounds the build of another binary, of which the standard library may be a part.
const buildLimit = 10 * time.Minute

// skewedAgents are agents of which one is ten minutes ahead, and one behind. The clocks of servers are right.
func skewedAgents(t *testing.T) *faultRun {
	t.Helper()
	binary, err := harness.ClockBinary(deadline(t, buildLimit))
	if err != nil {
		t.Fatal(err)
	}
	stores := harness.FastStores(t)
	agents := harness.PrepareLinkedCluster(t, stores, 3, shortLeases...)
	for i, shift := range []string{"10m", "0s", "-10m"} {
		agents[i].Use(binary, harness.ClockShift+"="+shift)
		launch(deadline(t, time.Minute), t, agents[i])
	}
	return startFaultRun(t, agents, stores, clientele{})
}

// killEach kills each agent in turn, so that each takes partitions over from others with other clocks.
func killEach(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	for _, a := range r.agents {
		kill(t, a)
		r.await(ctx, t, "without the agent that was killed")
		launch(ctx, t, a)
	}
	// The name of an object begins with the time at which its agent made it, in ms.
	type skew struct{ Least, Most int64 }
	names := query[skew](t, r.stores, `SELECT min(shift), max(shift) FROM (SELECT
		('x' || encode(substr(object_id, 1, 6), 'hex'))::bit(48)::bigint - created_at AS shift FROM objects) AS o`)[0]
	if minutes := (9 * time.Minute).Milliseconds(); names.Least > -minutes || names.Most < minutes {
		t.Errorf("by their names, objects were committed between %d ms too early and %d ms too late", names.Least, names.Most)
	}
}

// steppedPostgres makes agents on a database whose clock can be stepped; nil without libfaketime.
func steppedPostgres(t *testing.T) *faultRun {
	t.Helper()
	libraries, err := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if err != nil || len(libraries) == 0 {
		t.Logf("nothing is tested: libfaketime is not installed (%v)", err)
		return nil
	}
	clock, err := os.CreateTemp("", "streamhouse-clock-") // where the server's user can read it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(clock.Name()) })
	if err := errors.Join(clock.Close(), os.Chmod(clock.Name(), 0o644)); err != nil {
		t.Fatal(err)
	}
	server := underClock(t, libraries[0], clock.Name())
	stores := harness.Stores{Metadata: server.Database(), Objects: testdb.S3(t)}
	r := startFaultRun(t, harness.LinkedCluster(t, stores, 3, shortLeases...), stores, clientele{})
	r.postgres, r.clock = server, clock.Name()
	return r
}

// underClock starts a database with the clock of a file. The environment is that of the whole process for a moment.
func underClock(t *testing.T, library, file string) *testdb.PostgresServer {
	t.Helper()
	setClock(t, file, "+0s")
	environment := map[string]string{
		"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": file, "FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
	}
	for name, value := range environment {
		if err := os.Setenv(name, value); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		for name := range environment {
			os.Unsetenv(name)
		}
	}()
	return testdb.StartPostgres(t)
}

func setClock(t *testing.T, file, shift string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(shift+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// stepClock steps the clock of the database forward, when all leases look as if they had ended, and back, when none will
// end for long, and kills an agent each time.
func stepClock(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	before := r.leaders(t)
	for _, shift := range []time.Duration{10 * time.Minute, -10 * time.Minute, 0} {
		setClock(t, r.clock, fmt.Sprintf("%+ds", int(shift.Seconds())))
		r.awaitClock(ctx, t, shift)
		r.await(ctx, t, fmt.Sprintf("with the clock of the database at %v", shift))
		victim := r.victim(t)
		kill(t, victim)
		r.await(ctx, t, fmt.Sprintf("without the agent that was killed with the clock of the database at %v", shift))
		launch(ctx, t, victim)
	}
	t.Logf("leaders were %v, and are %v", before, r.leaders(t))
}

// awaitClock returns when the database sees the time that it should.
func (r *faultRun) awaitClock(ctx context.Context, t *testing.T, shift time.Duration) {
	t.Helper()
	type clock struct{ Now time.Time }
	for {
		now := query[clock](t, r.stores, "SELECT clock_timestamp()")[0].Now
		if off := time.Until(now) - shift; off.Abs() < time.Minute {
			return
		}
		pause(ctx, scenarioInterval)
		if ctx.Err() != nil {
			t.Fatalf("the database sees %s", now)
		}
	}
}

// olderRelease is the last commit before agents handed leases over, and buried each other: its schema has neither.
const olderRelease = "0e15cb5327bd7a77bb42c07fab7449d640ba1bae"

// olderAgents are two agents of the older release, and one of this that is not started yet; nil if this clone has no
// older release.
func olderAgents(t *testing.T) *faultRun {
	t.Helper()
	older, err := harness.OlderBinary(deadline(t, buildLimit), olderRelease)
	if errors.Is(err, harness.ErrNoHistory) {
		t.Logf("nothing is tested: %v", err)
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	stores := harness.FastStores(t)
	agents := harness.PrepareLinkedCluster(t, stores, 3, shortLeases...)
	for _, a := range agents[:2] {
		a.Use(older)
		launch(deadline(t, time.Minute), t, a)
	}
	return startFaultRun(t, agents, stores, clientele{})
}

// upgrade starts an agent of this release beside those of the older one, which brings the schema up to date under them,
// and then upgrades them one by one, the first in good order and the second after a kill. It ends as it began, but for
// the schema: also an agent of the older release can be started on that.
func upgrade(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	first, second, newest := r.agents[0], r.agents[1], r.agents[2]
	older, err := harness.OlderBinary(ctx, olderRelease)
	if err != nil {
		t.Fatal(err)
	}
	current, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	if newest.PID() == 0 {
		launch(ctx, t, newest)
		r.await(ctx, t, "with an agent of this release")
	}

	stop(ctx, t, first)
	r.await(ctx, t, "without the first agent of the older release")
	first.Use(current)
	launch(ctx, t, first)
	r.await(ctx, t, "with one agent of the older release")

	kill(t, second)
	r.await(ctx, t, "without an agent of the older release")
	second.Use(current)
	launch(ctx, t, second)
	r.await(ctx, t, "with agents of this release")

	for _, a := range []*harness.LinkedAgent{first, second} {
		stop(ctx, t, a)
		r.await(ctx, t, "without an agent that goes back to the older release")
		a.Use(older)
		launch(ctx, t, a)
		r.await(ctx, t, "with an agent that went back to the older release")
	}
}
