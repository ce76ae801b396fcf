package compattests

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

// What befalls the stores of all agents.

// loseEachAnswer has statements of each agent committed without an answer, until each has lost some.
func loseEachAnswer(t *testing.T, r *faultRun) {
	const answers = 10
	ctx := deadline(t, faultDeadline)
	for range answers {
		for _, a := range r.agents {
			select {
			case <-a.Postgres.LoseAnswer():
			case <-ctx.Done():
				t.Fatalf("agent %s asked nothing of the database", a.ID())
			}
		}
	}
}

// restartPostgres restarts the database, in good order and after a kill. As long as no lease ends meanwhile, every
// partition keeps its leader.
func restartPostgres(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	before, begun := r.leaders(t), time.Now()
	r.postgres.Restart()
	r.await(ctx, t, "after the database was restarted")
	r.postgres.Kill()
	r.postgres.Start()
	r.await(ctx, t, "after the database was killed")
	after, took := r.leaders(t), time.Since(begun)
	t.Logf("two restarts took %s", took.Round(time.Millisecond))
	// No lease can have ended in the time between two renewals.
	if took < 10*time.Second && !slices.Equal(before, after) {
		t.Errorf("leaders were %v, and are %v", before, after)
	}
}

// killCommitting kills the process of the database that is about to commit records, which has all others of it end too.
func killCommitting(t *testing.T, r *faultRun) {
	const kills = 3
	ctx := deadline(t, faultDeadline)
	before := r.leaders(t)
	for range kills {
		for !r.killBackend(t) {
			pause(ctx, scenarioInterval/4)
			if ctx.Err() != nil {
				t.Fatal("no agent committed")
			}
		}
		r.await(ctx, t, "after the database was killed inside of COMMIT")
	}
	t.Logf("leaders were %v, and are %v", before, r.leaders(t))
}

// killBackend kills a process of the database that commits records, if there is one.
func (r *faultRun) killBackend(t *testing.T) bool {
	t.Helper()
	committing := query[struct{ PID int32 }](t, r.stores, `SELECT pid FROM pg_stat_activity WHERE datname = current_database()
		AND state = 'active' AND wait_event_type IS NULL AND strpos(query, 'commit_objects') > 0 AND pid <> pg_backend_pid()`)
	return len(committing) > 0 && syscall.Kill(int(committing[0].PID), syscall.SIGKILL) == nil
}

// stopS3 takes the bucket away from all agents for some seconds.
func stopS3(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	for _, a := range r.agents {
		a.S3.Reset()
	}
	pause(ctx, scenarioLease)
	healAll(r)
}

// failS3 slows the bucket down, and has it answer uploads that it has stored with errors.
func failS3(t *testing.T, r *faultRun) {
	const slow, failures = 100 * time.Millisecond, 5
	ctx := deadline(t, faultDeadline)
	for _, a := range r.agents {
		a.S3.Delay(slow)
	}
	r.await(ctx, t, "with a slow bucket")
	for _, a := range r.agents {
		a.S3.FailUploads(true)
	}
	failed := func(a *harness.LinkedAgent) bool { return a.S3.FailedUploads() >= failures }
	for slices.IndexFunc(r.agents, failed) < 0 {
		pause(ctx, scenarioInterval)
		if ctx.Err() != nil {
			t.Fatal("no uploads failed")
		}
	}
	healAll(r)
}

func healAll(r *faultRun) {
	for _, a := range r.agents {
		a.Heal()
	}
}
