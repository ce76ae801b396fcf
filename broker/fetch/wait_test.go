package fetch_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/metadata"
)

// poll is a long poll under way in a synctest bubble.
type poll struct {
	ended   chan struct{}
	took    time.Duration // with results, once it has ended
	results []fetch.Result
}

func (p *poll) done() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// poll starts a long poll and returns when it waits, or is answered.
func (w *world) poll(ctx context.Context, o fetch.Options, reqs ...fetch.Request) *poll {
	p := &poll{ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		began := time.Now()
		p.results = w.reader.Fetch(ctx, reqs, o)
		p.took = time.Since(began)
	}()
	synctest.Wait()
	return p
}

const maxWait = 10 * time.Second

var patient = fetch.Options{MinBytes: 1, MaxBytes: 1 << 20, MaxWait: maxWait}

// inBubble runs a test of a world in a synctest bubble.
func inBubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, fetch.Config{})) })
}

func TestLongPollIsWokenByACommitOfThisAgent(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.lead(key(0))
		w.here(of(key(0), "a"))
		statements := w.index.statements()
		p := w.poll(t.Context(), patient, at(key(0), 1))
		if p.done() {
			t.Fatal("answered before there was anything")
		}
		time.Sleep(3 * time.Second)
		w.here(of(key(0), "b"))
		synctest.Wait()
		if !p.done() || p.took != 3*time.Second {
			t.Fatalf("answered: %v, after %v", p.done(), p.took)
		}
		if end := w.index.check(t, key(0), 1, p.results[0].Records); end != 2 {
			t.Errorf("read to %d", end)
		}
		if n := w.index.statements() - statements; n != 0 {
			t.Errorf("%d statements were needed", n)
		}
	})
}

func TestLongPollAtRestAsksNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.lead(key(0))
		w.here(of(key(0), "a"))
		statements := w.index.statements()
		for range 10 {
			if res := w.fetch(key(0), 1, patient); res.Err != nil || len(res.Records) > 0 {
				t.Fatalf("got %d bytes, %v", len(res.Records), res.Err)
			}
		}
		if n := w.index.statements() - statements; n != 0 {
			t.Errorf("%d statements in %v of waiting", n, 10*maxWait)
		}
	})
}

func TestIdleReaderAsksNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.elsewhere(of(key(0), "a"))
		w.fetch(key(0), 1, fetch.Options{MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second})
		synctest.Wait()
		statements := w.index.statements()
		time.Sleep(time.Hour)
		if n := w.index.statements() - statements; n != 0 {
			t.Errorf("%d statements with nobody waiting", n)
		}
	})
}

func TestLongPollSeesCommitsElsewhereByOneStatementAnInterval(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const readers, partitions = 5, 20
		var polls []*poll
		for p := range int32(partitions) {
			w.elsewhere(of(key(p), "a"))
			for range readers {
				polls = append(polls, w.poll(t.Context(), patient, at(key(p), 1)))
			}
		}
		statements := w.index.statements()
		time.Sleep(1100 * time.Millisecond)
		if n := w.index.statements() - statements; n != 5 {
			t.Errorf("%d statements in a second of waiting, want 5", n)
		}
		for p := range int32(partitions) {
			w.elsewhere(of(key(p), "b"))
		}
		statements = w.index.statements()
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		for i, p := range polls {
			k := key(int32(i / readers))
			if !p.done() || w.index.check(t, k, 1, p.results[0].Records) != 2 {
				t.Fatalf("long poll %d was not answered with the new record", i)
			}
		}
		if n := w.index.statements() - statements; n != 1 {
			t.Errorf("%d statements to bring the new records to all", n)
		}
	})
}

// A long poll that begins must not put off the poll for those who wait already.
func TestPollIsNotPutOffByNewLongPolls(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.lead(key(1))
		w.here(of(key(1), "a"))
		w.elsewhere(of(key(0), "a"))
		p := w.poll(t.Context(), patient, at(key(0), 1))
		w.elsewhere(of(key(0), "b"))
		short := fetch.Options{MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 50 * time.Millisecond}
		for range 20 {
			w.fetch(key(1), 1, short)
		}
		synctest.Wait()
		if !p.done() || p.took > 250*time.Millisecond {
			t.Errorf("answered: %v, after %v", p.done(), p.took)
		}
	})
}

func TestLongPollEndsWithMaxWaitAndWithItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.elsewhere(of(key(0), "a"))
		p := w.poll(t.Context(), patient, at(key(0), 1))
		time.Sleep(maxWait)
		synctest.Wait()
		if !p.done() || p.took != maxWait || p.results[0].Err != nil || p.results[0].Watermarks.High != 1 {
			t.Errorf("after MaxWait: %+v", p)
		}
		ctx, cancel := context.WithCancel(t.Context())
		p = w.poll(ctx, patient, at(key(0), 1))
		time.Sleep(time.Second)
		cancel()
		synctest.Wait()
		if !p.done() || p.took != time.Second {
			t.Errorf("after the end of its context: %+v", p)
		}
	})
}

func TestLongPollEndsWithTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := makeWorld(fetch.Config{})
		w.tb = t
		stop := w.run()
		w.lead(key(0))
		w.here(of(key(0), "a"))
		p := w.poll(t.Context(), patient, at(key(0), 1))
		stop()
		synctest.Wait()
		if !p.done() {
			t.Error("a long poll outlived the reader")
		}
	})
}

func TestLongPollGoesOnWhenLeadershipIsLost(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.lead(key(0))
		w.here(of(key(0), "a"))
		p := w.poll(t.Context(), patient, at(key(0), 1))
		time.Sleep(time.Second)
		w.lose(key(0))
		time.Sleep(time.Second)
		if p.done() {
			t.Fatal("answered though there is nothing new")
		}
		w.elsewhere(of(key(0), "b"))
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if !p.done() || w.index.check(t, key(0), 1, p.results[0].Records) != 2 {
			t.Fatal("not answered with what the new leader has committed")
		}
	})
}

// A client that believes in a leader epoch must hear of the next one (KIP-320).
func TestLongPollIsAnsweredWhenTheLeaderEpochMoves(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.lose(key(0))
		w.elsewhere(of(key(0), "a"))
		q := at(key(0), 1)
		q.LeaderEpoch = 1
		p := w.poll(t.Context(), patient, q)
		time.Sleep(time.Second)
		if p.done() {
			t.Fatal("answered in its own leader epoch")
		}
		w.lose(key(0))
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if !p.done() || p.results[0].Watermarks.LeaderEpoch != 2 {
			t.Errorf("answered: %v: %+v", p.done(), p.results)
		}
	})
}

func TestMinBytesCountsAllPartitions(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		one := int64(len(of(key(0), "a").batches[0]))
		reqs := []fetch.Request{at(key(0), 0), at(key(1), 0), at(key(2), 0)}
		for _, q := range reqs {
			w.lead(q.Key)
		}
		o := patient
		o.MinBytes = 3 * one
		p := w.poll(t.Context(), o, reqs...)
		w.here(of(key(0), "a"))
		w.inlineHere(of(key(1), "a"))
		synctest.Wait()
		if p.done() {
			t.Fatal("answered with less than MinBytes")
		}
		w.here(of(key(2), "a"))
		synctest.Wait()
		if !p.done() {
			t.Fatal("not answered with MinBytes")
		}
		for i, res := range p.results {
			if w.index.check(t, reqs[i].Key, 0, res.Records) != 1 {
				t.Errorf("partition %d has no record", i)
			}
		}
	})
}

func TestErrorsEndTheWait(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.elsewhere(of(key(0), "a"))
		p := w.poll(t.Context(), patient, at(key(0), 1), at(key(9), 0))
		if !p.done() || !errors.Is(p.results[1].Err, metadata.ErrUnknownTopic) || p.results[0].Err != nil {
			t.Fatalf("with a partition that is not there: %+v", p)
		}
		p = w.poll(t.Context(), patient, at(key(0), 1))
		w.index.mu.Lock()
		delete(w.index.parts, key(0))
		w.index.mu.Unlock()
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if !p.done() || !errors.Is(p.results[0].Err, metadata.ErrUnknownTopic) {
			t.Errorf("when the topic is deleted: %+v", p)
		}
	})
}

func TestForgetEndsTheWait(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.lead(key(0))
		w.here(of(key(0), "a"))
		p := w.poll(t.Context(), patient, at(key(0), 1))
		w.index.mu.Lock()
		delete(w.index.parts, key(0))
		w.index.mu.Unlock()
		w.reader.Forget(topicID)
		synctest.Wait()
		if !p.done() || p.took != 0 || !errors.Is(p.results[0].Err, metadata.ErrUnknownTopic) {
			t.Errorf("answered: %v, after %v: %+v", p.done(), p.took, p.results)
		}
	})
}

// While the database is away, what is known is served, and what is not is an
// error that may pass: never out of range.
func TestIndexThatIsUnavailable(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.lead(key(0))
		w.here(of(key(0), "a", "b"))
		w.elsewhere(of(key(1), "a"))
		w.index.fail(metadata.ErrUnavailable)
		w.want(key(0), 0)
		if p := w.poll(t.Context(), patient, at(key(0), 2)); p.done() {
			t.Errorf("a long poll of a partition that is led here was answered: %+v", p.results)
		}
		for _, q := range []fetch.Request{at(key(0), 3), at(key(1), 0), at(key(1), 1), at(key(1), 2)} {
			if p := w.poll(t.Context(), patient, q); !p.done() || !errors.Is(p.results[0].Err, metadata.ErrUnavailable) {
				t.Errorf("partition %d at %d: %+v", q.Key.Partition, q.Offset, p)
			}
		}
	})
}

// What other agents commit is served within two poll intervals even to fetches
// that do not wait.
func TestStalenessIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.elsewhere(of(key(0), "a"))
		w.want(key(0), 0)
		w.elsewhere(of(key(0), "b"))
		time.Sleep(401 * time.Millisecond)
		w.want(key(0), 1)
	})
}

// Records that DeleteRecords deleted through another agent may be served for
// a while, by an agent that has no reason to ask.
func TestLogStartOfOthersIsSeenInAMinute(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.lead(key(0))
		w.here(of(key(0), "a"), of(key(0), "b"))
		w.index.deleteRecords(key(0), 1)
		time.Sleep(61 * time.Second)
		res := w.fetch(key(0), 0, ample)
		if !errors.Is(res.Err, fetch.ErrOffsetOutOfRange) || res.Watermarks.LogStart != 1 {
			t.Errorf("got %+v", res)
		}
	})
}
