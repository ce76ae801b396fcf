package ingest

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDecide(t *testing.T) {
	const ms = time.Millisecond
	c := DefaultConfig() // inline up to 16 KiB, linger 250 ms
	for name, tc := range map[string]struct {
		view view
		want decision
	}{
		"an empty buffer runs no timer":                                 {view{slot: true}, decision{}},
		"an empty buffer runs no timer while draining":                  {view{slot: true, hurried: true}, decision{}},
		"small goes inline at once":                                     {view{bytes: 1, slot: true}, decision{flush: true, kind: inline}},
		"small goes inline whatever the budget of uploads":              {view{bytes: 16384, slot: true, putWait: ms}, decision{flush: true, kind: inline}},
		"small waits for the commit in front":                           {view{bytes: 1, slot: true, committing: true}, decision{}},
		"small waits for it even beyond the linger":                     {view{bytes: 1, slot: true, committing: true, age: time.Minute}, decision{}},
		"small behind an upload is uploaded":                            {view{bytes: 1, slot: true, uploading: true}, decision{flush: true}},
		"small without inline budget is uploaded":                       {view{bytes: 1, slot: true, inlineWait: ms}, decision{flush: true}},
		"small without any budget waits for the first":                  {view{bytes: 1, slot: true, inlineWait: 7 * ms, putWait: 9 * ms}, decision{after: 7 * ms}},
		"small behind a commit needs no inline budget":                  {view{bytes: 1, slot: true, inlineWait: 7 * ms, putWait: 9 * ms, committing: true}, decision{after: 9 * ms}},
		"small waits for the pace of commits":                           {view{bytes: 1, slot: true, commitWait: 7 * ms}, decision{after: 7 * ms}},
		"large waits for the pace of commits":                           {view{bytes: 16385, slot: true, commitWait: 7 * ms}, decision{after: 7 * ms}},
		"bulk does not":                                                 {view{bytes: bulkBytes, slot: true, commitWait: 7 * ms}, decision{flush: true}},
		"nothing waits for that longer than the linger":                 {view{bytes: 1, slot: true, commitWait: 7 * ms, age: 246 * ms}, decision{after: 4 * ms}},
		"after the linger the pace is no matter":                        {view{bytes: 1, slot: true, commitWait: 7 * ms, age: 250 * ms}, decision{flush: true, kind: inline}},
		"a hurry does not care for the pace":                            {view{bytes: 1, slot: true, commitWait: 7 * ms, hurried: true}, decision{flush: true, kind: inline}},
		"borrowed is uploaded at once, however small":                   {view{bytes: 1, slot: true, borrowed: true}, decision{flush: true}},
		"borrowed is uploaded beside a commit":                          {view{bytes: 1, slot: true, borrowed: true, committing: true}, decision{flush: true}},
		"borrowed waits for the budget of uploads":                      {view{bytes: 1, slot: true, borrowed: true, putWait: 25 * ms}, decision{after: 25 * ms}},
		"large is uploaded at once":                                     {view{bytes: 16385, slot: true}, decision{flush: true}},
		"large is uploaded beside a commit":                             {view{bytes: 16385, slot: true, committing: true}, decision{flush: true}},
		"large waits for the budget":                                    {view{bytes: 16385, slot: true, putWait: 25 * ms, age: 10 * ms}, decision{after: 25 * ms}},
		"large waits no longer than the linger":                         {view{bytes: 16385, slot: true, putWait: 25 * ms, age: 240 * ms}, decision{after: 10 * ms}},
		"after the linger the budget is overdrawn":                      {view{bytes: 16385, slot: true, putWait: 25 * ms, age: 250 * ms}, decision{flush: true, reason: reasonLinger}},
		"without a slot nothing helps":                                  {view{bytes: 16385, age: time.Minute}, decision{}},
		"without a slot nothing helps while draining":                   {view{bytes: 16385, age: time.Minute, hurried: true}, decision{}},
		"draining overdraws the budget":                                 {view{bytes: 16385, slot: true, putWait: 25 * ms, hurried: true}, decision{flush: true, reason: reasonHurry}},
		"draining prefers inline":                                       {view{bytes: 1, slot: true, hurried: true}, decision{flush: true, kind: inline}},
		"draining without inline budget and behind a commit is no wait": {view{bytes: 1, slot: true, inlineWait: ms, committing: true, putWait: ms, hurried: true}, decision{flush: true, reason: reasonHurry}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.decide(tc.view); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
	c.InlineMaxBytes = 0
	if got := c.decide(view{bytes: 1, slot: true}); got.kind == inline {
		t.Error("inline flushes can't be switched off")
	}
}

// A buffer that could be flushed is, or is asked about again within the linger:
// nothing is forgotten.
func TestDecideNeverForgets(t *testing.T) {
	c := DefaultConfig()
	rapid.Check(t, func(t *rapid.T) {
		wait := rapid.SampledFrom([]time.Duration{0, 1, time.Millisecond, time.Minute})
		v := view{
			bytes:      rapid.Int64Range(1, c.MaxBytes).Draw(t, "bytes"),
			age:        rapid.SampledFrom([]time.Duration{0, 1, c.MaxLinger - 1, c.MaxLinger, time.Hour}).Draw(t, "age"),
			hurried:    rapid.Bool().Draw(t, "hurried"),
			borrowed:   rapid.Bool().Draw(t, "borrowed"),
			uploading:  rapid.Bool().Draw(t, "uploading"),
			committing: rapid.Bool().Draw(t, "committing"),
			slot:       true,
			putWait:    wait.Draw(t, "put wait"),
			inlineWait: wait.Draw(t, "inline wait"),
			commitWait: wait.Draw(t, "commit wait"),
		}
		d := c.decide(v)
		event := v.committing || v.uploading // whose end is waited for
		if !d.flush && d.after == 0 && !event {
			t.Fatalf("nothing will wake %+v", v)
		}
		if d.after < 0 || d.after > c.MaxLinger {
			t.Fatalf("asks again after %v", d.after)
		}
		if v.hurried && !d.flush && !event {
			t.Fatalf("draining waits: %+v", v)
		}
	})
}

func TestBucketKeepsItsRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.5, 1e6).Draw(t, "rate")
		burst := rapid.Float64Range(1, 1e6).Draw(t, "burst")
		start := time.Unix(0, 0)
		now := start
		b := newBucket(rate, burst, now)
		taken := 0.0
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(t, "pause")))
			n := rapid.Float64Range(0, burst).Draw(t, "tokens")
			now = now.Add(b.wait(now, n))
			if again := b.wait(now, n); again > time.Microsecond {
				t.Fatalf("%v tokens are not there after the wait: %v more", n, again)
			}
			b.take(now, n)
			taken += n
			if limit := burst + rate*now.Sub(start).Seconds(); taken > limit*(1+1e-6)+1e-3 {
				t.Fatalf("%v tokens were taken, at most %v may be", taken, limit)
			}
		}
	})
}

func TestBucketCanBeOverdrawn(t *testing.T) {
	now := time.Unix(0, 0)
	b := newBucket(10, 5, now)
	for range 100 {
		b.take(now, 1)
	}
	if wait := b.wait(now, 1); wait != 600*time.Millisecond { // it owes no more than the burst
		t.Errorf("wait is %v", wait)
	}
	if wait := b.wait(now.Add(time.Hour), 5); wait != 0 {
		t.Errorf("wait is %v after an hour", wait)
	}
}
