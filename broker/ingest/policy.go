package ingest

import (
	"math"
	"time"
)

// kind says where a flush's bytes go.
type kind uint8

const (
	inObject kind = iota
	inline
)

// reason says why a buffer was sealed.
type reason uint8

const (
	reasonReady  reason = iota // nothing speaks against it
	reasonFull                 // a limit of the buffer was reached
	reasonLinger               // it waited as long as it may
	reasonHurry                // somebody waits for the pool to be empty
)

// view is what the decision on the open buffer depends on.
type view struct {
	bytes   int64         // in the buffer
	age     time.Duration // of its first batch
	hurried bool          // it has to be flushed without waiting for any budget
	// borrowed: some of it is committed by other agents, which must not get bytes.
	borrowed bool

	uploading  bool // something in front of the buffer is not uploaded yet
	committing bool // something in front of it is being committed
	slot       bool // an upload could start now

	putWait    time.Duration // until the budget allows an upload
	inlineWait time.Duration // until the budget allows the buffer's bytes inline
	commitWait time.Duration // until the pace allows a commit
}

// decision is what to do with the open buffer.
type decision struct {
	flush  bool
	kind   kind
	reason reason
	// after is when to decide again if nothing changes before; 0 is never.
	after time.Duration
}

// decide is the flush policy for a buffer that is not full; a full one becomes an
// object at once. In this order:
//
//   - A buffer waits for the pace of commits (pace), until it is of bulkBytes, and
//     no longer than MaxLinger.
//   - A small buffer goes inline as soon as nothing is in front of it. While a
//     commit is, it waits for that and for nothing else: a lone producer is
//     answered as soon as its own commit lands, many are grouped by the commits
//     themselves, and neither costs an upload.
//   - Any other buffer becomes an object as soon as the budget has a PUT and a
//     slot is free.
//   - A buffer that waited MaxLinger for that budget overdraws it.
//
// Behind an upload a small buffer is like any other: commits are in order, and
// it would wait for the upload all the same. So is one of which other agents commit
// a part; it does not wait for the pace of this one's commits either.
func (c *Config) decide(v view) decision {
	small := v.bytes <= c.InlineMaxBytes && !v.uploading && !v.borrowed
	switch {
	case v.bytes == 0:
		return decision{}
	case v.commitWait > 0 && v.bytes < bulkBytes && v.age < c.MaxLinger && !v.hurried:
		return decision{after: min(v.commitWait, c.MaxLinger-v.age)}
	case small && v.inlineWait == 0 && v.committing:
		return decision{}
	case small && v.inlineWait == 0:
		return decision{flush: true, kind: inline, reason: reasonReady}
	case !v.slot:
		return decision{}
	case v.hurried:
		return decision{flush: true, reason: reasonHurry}
	case v.putWait == 0:
		return decision{flush: true, reason: reasonReady}
	case v.age >= c.MaxLinger:
		return decision{flush: true, reason: reasonLinger}
	}
	after := min(v.putWait, c.MaxLinger-v.age)
	if small && !v.committing {
		after = min(after, v.inlineWait)
	}
	return decision{after: after}
}

// bucket is a token bucket that can be overdrawn.
type bucket struct {
	rate  float64 // tokens a second
	burst float64 // most that it holds, and most that it owes
	level float64
	at    time.Time // when level was right
}

func newBucket(rate, burst float64, now time.Time) bucket {
	return bucket{rate: rate, burst: burst, level: burst, at: now}
}

// levelAt is what is in the bucket.
func (b *bucket) levelAt(now time.Time) float64 {
	return min(b.burst, b.level+b.rate*now.Sub(b.at).Seconds())
}

// wait is the time until n tokens are there; n is at most the burst.
func (b *bucket) wait(now time.Time, n float64) time.Duration {
	missing := n - b.levelAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(math.Ceil(missing / b.rate * float64(time.Second)))
}

// take takes n tokens, whether they are there or not.
func (b *bucket) take(now time.Time, n float64) {
	b.level = max(b.levelAt(now)-n, -b.burst)
	b.at = now
}
