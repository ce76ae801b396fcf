package postgres_test

import (
	"context"
	"testing"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

// The torture on a server that flushes to disk and is killed inside commits: what
// was acknowledged is there after its recovery, and what was not is answered then.
func TestTortureServerKilled(t *testing.T) {
	const kills = 3
	server := testdb.StartPostgres(t)
	url := server.Database()
	tt := newTorture(t, url, url)

	due := make(chan struct{}, 1)
	tt.disturb = append(tt.disturb, func(context.Context) {
		if tt.commits.Load() > 0 {
			select {
			case due <- struct{}{}:
			default: // one is on its way
			}
		}
	})
	killed := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range due { // until the producers have ended
			if killed == kills {
				continue
			}
			killed++
			tt.outage.Lock() // holds up retries, not the commits that run
			server.Kill()
			server.Start()
			tt.outage.Unlock()
		}
	}()
	tt.run(tortureCommits / 2)
	close(due)
	<-done
	if killed < kills {
		t.Errorf("the server was killed %d times, not %d", killed, kills)
	}
	tt.report()
}
