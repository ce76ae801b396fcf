package balance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Objects is where flushes are uploaded to.
type Objects interface {
	// Put is that of objstore.Store.
	Put(ctx context.Context, key string, body []byte) error
}

// errGivenUp is why an upload fails at once.
var errGivenUp = errors.New("the object store was given up")

// Bucket is an object store that remembers for how long no upload has succeeded.
// It is safe for concurrent use.
type Bucket struct {
	Objects

	mu       sync.Mutex
	next     int
	inFlight map[int]upload
	failed   time.Time // when the first began that failed since the last success; zero: none
	ended    time.Time // when the last failed
	success  time.Time // the last
	givenUp  bool
}

// upload is one that is under way.
type upload struct {
	begun  time.Time
	cancel context.CancelCauseFunc
}

// wantedFor is how long after one that failed another upload is expected. Clients
// try again sooner; if none comes, nobody knows how the bucket is.
const wantedFor = 5 * time.Second

// NewBucket watches the uploads to an object store.
func NewBucket(o Objects) *Bucket { return &Bucket{Objects: o, inFlight: make(map[int]upload)} }

// Put implements Objects.
func (b *Bucket) Put(ctx context.Context, key string, body []byte) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begun := time.Now()
	b.mu.Lock()
	if b.givenUp {
		b.mu.Unlock()
		return errGivenUp
	}
	b.forget()
	id := b.next
	b.next++
	b.inFlight[id] = upload{begun, cancel}
	b.mu.Unlock()

	err := b.Objects.Put(ctx, key, body)
	if err != nil && errors.Is(context.Cause(ctx), errGivenUp) {
		err = fmt.Errorf("%w: %w", errGivenUp, err)
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.inFlight, id)
	if err == nil {
		b.success, b.failed = time.Now(), time.Time{}
		return nil
	}
	b.ended = time.Now()
	if b.failed.IsZero() {
		b.failed = begun
	}
	return err
}

// forget forgets what has failed if nothing was wanted since. The caller holds mu.
func (b *Bucket) forget() {
	if len(b.inFlight) == 0 && time.Since(b.ended) > wantedFor {
		b.failed = time.Time{}
	}
}

// Failing is how long no upload has succeeded while one was wanted; 0 if none is.
func (b *Bucket) Failing() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget()
	first := b.failed
	for _, u := range b.inFlight {
		if first.IsZero() || u.begun.Before(first) {
			first = u.begun
		}
	}
	switch {
	case first.IsZero():
		return 0
	case first.Before(b.success):
		first = b.success
	}
	return time.Since(first)
}

// giveUp fails all uploads at once, those under way too, until forgive: whoever
// waits for one learns that it came to nothing, and need not wait for its timeout.
func (b *Bucket) giveUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.givenUp = true
	for _, u := range b.inFlight {
		u.cancel(errGivenUp)
	}
}

// forgive forgets what has failed, so that the time begins anew.
func (b *Bucket) forgive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.givenUp = false
	b.success, b.failed = time.Now(), time.Time{}
}
