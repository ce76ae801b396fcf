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
	ended    time.Time         // when the last failed
	success  time.Time         // the last
}

// wantedFor is how long after one that failed another upload is expected. Clients
// try again sooner; if none comes, nobody knows how the bucket is.
const wantedFor = 5 * time.Second

// NewBucket watches the uploads to an object store.
func NewBucket(o Objects) *Bucket { return &Bucket{Objects: o, inFlight: make(map[int]time.Time)} }

// Put implements Objects.
func (b *Bucket) Put(ctx context.Context, key string, body []byte) error {
	begun := time.Now()
	b.mu.Lock()
	b.forget()
	id := b.next
	b.next++
	b.inFlight[id] = begun
	b.mu.Unlock()

	err := b.Objects.Put(ctx, key, body)

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
