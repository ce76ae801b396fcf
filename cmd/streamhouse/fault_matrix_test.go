package main

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

// faultRig is an agent under load, with what stands between it and its stores.
type faultRig struct {
	*isolated
	postgres    *testdb.PostgresServer // nil if the shared one is used
	s3          *testdb.S3Server       // nil if the shared one is used
	databaseURL string                 // of the shared one, not through the proxy
	flow
}

// flow is what writes to one topic.
type flow struct {
	t       testing.TB
	loaders []*loader
}

// impatient makes every timeout so short that a fault outlasts it.
func impatient(s *Settings) {
	s.LeaseDuration, s.HeartbeatInterval = 3*time.Second, time.Second
	s.Flush.UploadTimeout = 2 * time.Second
	s.Flush.CommitTimeout, s.Flush.CommitDeadline = time.Second, 2*time.Second
	s.Flush.PutsPerSecond, s.Flush.PutBurst = 1000, 1000
}

// progress waits until every loader has been acknowledged some more records.
func (f *flow) progress() {
	f.t.Helper()
	const more = 2 * window
	for i, l := range f.loaders {
		want := l.acks.Load() + more
		eventually(f.t, "the agent goes on", func() bool { return l.acks.Load() >= want || f.t.Failed() })
		if f.t.Failed() {
			f.t.Fatalf("loader %d: %d acknowledged, %d refused", i, l.acks.Load(), l.refusals.Load())
		}
	}
}

// refusals waits until every loader has been refused something more.
func (f *flow) refusals() {
	f.t.Helper()
	for _, l := range f.loaders {
		want := l.refusals.Load() + 2*window
		eventually(f.t, "the fault is felt", func() bool { return l.refusals.Load() >= want || f.t.Failed() })
	}
}

// lossRounds is how often a fault that ends one connection is made.
const lossRounds = 15

// repeat makes a fault of one connection again and again, each time when the one
// before has happened and the agent has got over it.
func (r *faultRig) repeat(fault func() (happened <-chan struct{})) {
	r.t.Helper()
	for range lossRounds {
		select {
		case <-fault():
		case <-time.After(testTimeout):
			r.t.Fatal("the fault did not happen")
		}
		r.progress()
	}
}

// outage cuts one store off until the loaders feel it.
func outage(of func(*faultRig) *testdb.Proxy) func(*faultRig) {
	return func(r *faultRig) {
		of(r).Refuse(true)
		of(r).CloseAll()
		r.refusals()
		of(r).Refuse(false)
	}
}

// freeze holds all that goes one way, or both, until the loaders feel it, who
// are told that nobody knows. What was held arrives then: commits and uploads
// that nobody waits for any more.
func freeze(of func(*faultRig) *testdb.Proxy, ways ...testdb.Direction) func(*faultRig) {
	return func(r *faultRig) {
		for _, d := range ways {
			of(r).Pause(d)
		}
		r.refusals()
		if !slices.ContainsFunc(r.loaders, func(l *loader) bool { return l.timeouts.Load() > 0 }) {
			r.t.Error("nobody was told that the outcome is open")
		}
		for _, d := range ways {
			of(r).Resume(d)
		}
	}
}

// slow delays all that passes, both ways.
func slow(of func(*faultRig) *testdb.Proxy) func(*faultRig) {
	return func(r *faultRig) {
		of(r).Delay(testdb.ToServer, 50*time.Millisecond)
		of(r).Delay(testdb.ToClient, 50*time.Millisecond)
		r.progress()
		of(r).Delay(testdb.ToServer, 0)
		of(r).Delay(testdb.ToClient, 0)
	}
}

func theDatabase(r *faultRig) *testdb.Proxy { return r.database }
func theBucket(r *faultRig) *testdb.Proxy   { return r.bucket }

// terminateSessions ends all sessions of the rig's database, whatever they do.
func terminateSessions(r *faultRig) {
	ctx, cancel := context.WithTimeout(r.t.Context(), testTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.databaseURL)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(ctx)
	for range lossRounds {
		_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		if err != nil {
			r.t.Fatal(err)
		}
		r.progress()
	}
}

// The fault matrix: whatever happens to the stores under load, clients are told
// only to try again, what they were told is true of the log, and the agent goes
// on by itself.
func TestFaults(t *testing.T) {
	for _, test := range []struct {
		name        string
		ownPostgres bool // a server of its own, which flushes what it acknowledges
		ownS3       bool
		neverInline bool
		fault       func(*faultRig)
	}{
		{name: "database unreachable", fault: outage(theDatabase)},
		{name: "database frozen", fault: freeze(theDatabase, testdb.ToServer, testdb.ToClient)},
		{name: "database does not answer", fault: freeze(theDatabase, testdb.ToClient)},
		{name: "database slow", fault: slow(theDatabase)},
		{name: "database loses what it is asked", fault: func(r *faultRig) {
			r.repeat(func() <-chan struct{} { return r.database.CutNextRequest(testdb.PostgresExecutes) })
		}},
		{name: "database does it and its answer is lost", fault: func(r *faultRig) {
			r.repeat(func() <-chan struct{} { return r.database.CutReplyTo(testdb.PostgresExecutes, testdb.PostgresReady) })
		}},
		{name: "database ends sessions", fault: terminateSessions},
		{name: "database restarted", ownPostgres: true, fault: func(r *faultRig) {
			for range 3 {
				r.postgres.Restart()
				r.progress()
			}
		}},
		{name: "database killed", ownPostgres: true, fault: func(r *faultRig) {
			for range 3 {
				r.postgres.Kill()
				r.postgres.Start()
				r.progress()
			}
		}},
		{name: "bucket unreachable", neverInline: true, fault: outage(theBucket)},
		{name: "bucket frozen", neverInline: true, fault: freeze(theBucket, testdb.ToServer, testdb.ToClient)},
		{name: "bucket does not answer", neverInline: true, fault: freeze(theBucket, testdb.ToClient)},
		{name: "bucket slow", neverInline: true, fault: slow(theBucket)},
		{name: "bucket loses an upload", neverInline: true, fault: func(r *faultRig) {
			r.repeat(func() <-chan struct{} { return r.bucket.CutNextRequest(testdb.HTTPRequests("PUT")) })
		}},
		{name: "bucket stores an upload and its answer is lost", neverInline: true, fault: func(r *faultRig) {
			r.repeat(func() <-chan struct{} { return r.bucket.CutReplyTo(testdb.HTTPRequests("PUT"), testdb.HTTPAnswers) })
		}},
		{name: "bucket drops connections now and then", neverInline: true, fault: func(r *faultRig) {
			n := int64(100)
			r.repeat(func() <-chan struct{} { n += 777; return r.bucket.DropAfter(testdb.ToServer, n) })
		}},
		{name: "bucket killed", ownS3: true, neverInline: true, fault: func(r *faultRig) {
			for range 2 {
				r.s3.Kill()
				r.refusals()
				r.s3.Start()
				r.progress()
			}
		}},
		{name: "everything unreachable", neverInline: true, fault: func(r *faultRig) {
			for _, p := range []*testdb.Proxy{r.database, r.bucket} {
				p.Refuse(true)
				p.CloseAll()
			}
			r.refusals()
			r.database.Refuse(false)
			r.bucket.Refuse(false)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := &faultRig{}
			var s stores
			if test.ownPostgres {
				r.postgres = testdb.StartPostgres(t)
				s.metadata = r.postgres.Database()
			} else {
				r.databaseURL = testdb.Postgres(t)
				s.metadata = unsafe(r.databaseURL)
			}
			if test.ownS3 {
				r.s3 = testdb.StartS3(t)
				s.objects = r.s3.Bucket()
			} else {
				s.objects = testdb.S3(t)
			}
			r.run(t, s, test.neverInline, test.fault)
		})
	}
}

// run puts an agent under load, makes the fault, and checks everything.
func (r *faultRig) run(t *testing.T, s stores, neverInline bool, fault func(*faultRig)) {
	r.isolated = startIsolated(t, s, named("agent"), impatient, func(s *Settings) {
		if neverInline {
			s.Flush.InlineMaxBytes = 0
		}
	})
	tp := makeTopic(dial(t, r.addr), "faults", 2)
	r.begin(t, tp, func() []string { return []string{r.addr} })
	tail := startTailer(t, r.addr, tp, 0)
	r.progress()
	fault(r)
	r.progress()
	// Another agent reads only what is in the stores.
	log := r.drain(t, tp, startAgent(t, s, named("reader")))
	tail.finish(log)
}

// begin starts the loaders: two idempotent ones, and one that shares a partition.
func (f *flow) begin(t *testing.T, tp topic, agents func() []string) {
	f.t = t
	for _, l := range []struct {
		partition  int32
		idempotent bool
	}{{0, true}, {0, false}, {1, true}} {
		f.loaders = append(f.loaders, startLoader(t, tp, l.partition, l.idempotent, agents))
	}
}

// drain ends the loaders, has both logs checked through an agent, and returns
// the first one.
func (f *flow) drain(t *testing.T, tp topic, through *testAgent) []logged {
	t.Helper()
	for i, l := range f.loaders {
		l.finish()
		t.Logf("loader %d: %d acknowledged; %d refused, %d of them timed out, %d for a gap",
			i, l.acks.Load(), l.refusals.Load(), l.timeouts.Load(), l.gaps.Load())
	}
	reader := dial(t, through.addr)
	log := checkLog(reader, tp, 0, f.loaders)
	checkLog(reader, tp, 1, f.loaders)
	return log
}
