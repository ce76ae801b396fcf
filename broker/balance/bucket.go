package balance

import (
	"context"
	"sync"
	"time"
)

// Objects is where flushes are uploaded to.
type Objects interface {
	// Put is that of objstore.Store.
	Put(ctx context.Context, key string, body []byte) error
}

// Bucket is an object store that remembers for how long no upload has succeeded.
// It is safe for concurrent use.
type Bucket struct {
	Objects

	mu       sync.Mutex
	next     int
	inFlight map[int]time.Time // when they began
	failed   time.Time         // when the first began that failed since the last success; zero: none
	success  time.Time         // the last
}

// NewBucket watches the uploads to an object store.
func NewBucket(o Objects) *Bucket { return &Bucket{Objects: o, inFlight: make(map[int]time.Time)} }

// Put implements Objects.
func (b *Bucket) Put(ctx context.Context, key string, body []byte) error {
	begun := time.Now()
	b.mu.Lock()
	id := b.next
	b.next++
	b.inFlight[id] = begun
	b.mu.Unlock()

	err := b.Objects.Put(ctx, key, body)

	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.inFlight, id)
	switch {
	case err == nil:
		b.success, b.failed = time.Now(), time.Time{}
	case b.failed.IsZero():
		b.failed = begun
	}
	return err
}

// Failing is how long no upload has succeeded while one was wanted; 0 if none is.
func (b *Bucket) Failing() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := b.failed
	for _, begun := range b.inFlight {
		if first.IsZero() || begun.Before(first) {
			first = begun
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

// forgive forgets what has failed, so that the time begins anew.
func (b *Bucket) forgive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.success, b.failed = time.Now(), time.Time{}
}
