package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/faulty"
)

// zone is the agents of one zone, and what they know of each other.
type zone struct {
	agents []*world
	owner  func(self int, chunk int64) int

	mu     sync.Mutex
	asked  []int                        // of each agent, how often
	mangle func([]byte) ([]byte, error) // what becomes of an answer; nil: nothing
	silent bool
}

// member is a zone as one of its agents sees it.
type member struct {
	*zone
	self int
}

func (m member) Owner(_ segment.ID, chunk int64) (string, bool) {
	n := m.owner(m.self, chunk)
	return fmt.Sprint(n), n != m.self
}

func (m member) Block(ctx context.Context, id string, object segment.ID, size, from, to int64) ([]byte, error) {
	n := slices.IndexFunc([]string{"0", "1", "2"}, func(s string) bool { return s == id })
	m.mu.Lock()
	m.asked[n]++
	mangle, silent := m.mangle, m.silent
	m.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	data, err := m.agents[n].reader.Block(ctx, object, size, from, to)
	if err != nil || mangle == nil {
		return data, err
	}
	return mangle(bytes.Clone(data))
}

func (z *zone) times(agent int) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[agent]
}

// fault sets what becomes of answers.
func (z *zone) fault(mangle func([]byte) ([]byte, error)) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.mangle = mangle
}

// newZone returns a zone of three agents, in which by default the first owns
// everything.
func newZone(tb testing.TB, cfg fetch.Config) *zone {
	z := &zone{asked: make([]int, 3), owner: func(int, int64) int { return 0 }}
	first := makeWorld(cfg)
	for n := range 3 {
		cfg.Zone = member{z, n}
		w := on(first.index, first.objects, cfg)
		w.tb = tb
		tb.Cleanup(w.run())
		z.agents = append(z.agents, w)
	}
	return z
}

// loaded counts the bytes that all agents read from the bucket.
func (z *zone) loaded() (n float64) {
	for _, w := range z.agents {
		n += w.metric("fetch_loaded_bytes_total")
	}
	return n
}

func TestZoneReadsEachBlockOnce(t *testing.T) {
	t.Parallel()
	z := newZone(t, fetch.Config{BlockBytes: 64 << 10})
	z.owner = func(_ int, chunk int64) int { return int(chunk) % 3 }
	sizes := make([]int, 20)
	for i := range sizes {
		sizes[i] = 1 << 20
	}
	size := len(z.agents[0].elsewhere(sized(0, sizes...)).object)
	var group sync.WaitGroup
	for _, w := range z.agents {
		group.Go(func() { w.want(key(0), 0) })
	}
	group.Wait()
	if n := z.loaded(); int(n) != size {
		t.Errorf("%v bytes were read of an object of %d", n, size)
	}
	for n := range z.agents {
		if z.times(n) == 0 {
			t.Errorf("agent %d was not asked", n)
		}
	}
	for _, c := range z.agents[0].gets() {
		if c.Offset/fetch.ChunkBytes != (c.Offset+c.Length-1)/fetch.ChunkBytes {
			t.Errorf("bytes %d to %d are of two chunks", c.Offset, c.Offset+c.Length)
		}
	}
}

func TestOwnerThatFailsIsPassedOver(t *testing.T) {
	for name, mangle := range map[string]func([]byte) ([]byte, error){
		"error": func([]byte) ([]byte, error) { return nil, errors.New("no") },
		"short": func(b []byte) ([]byte, error) { return b[1:], nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := newZone(t, fetch.Config{})
				z.fault(mangle)
				reader := z.agents[1]
				for n := range int32(4) {
					reader.elsewhere(sized(n, 100))
				}
				for n := range int32(3) {
					reader.want(key(n), 0)
				}
				if n := z.times(0); n != 1 || reader.metric("fetch_peer_fallbacks_total") != 1 {
					t.Errorf("asked %d times", n)
				}
				z.fault(nil)
				time.Sleep(5*time.Second + 1)
				reader.want(key(3), 0)
				if n := z.times(0); n != 2 || reader.metric("fetch_peer_blocks_total") != 1 {
					t.Errorf("asked %d times after a while", n)
				}
			})
		})
	}
}

func TestOwnerThatIsSilentIsWaitedForShortly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(t, fetch.Config{})
		z.silent = true
		z.agents[1].elsewhere(sized(0, 100))
		z.agents[1].elsewhere(sized(1, 100))
		began := time.Now()
		z.agents[1].want(key(0), 0)
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("took %v", took)
		}
		began = time.Now()
		z.agents[1].want(key(1), 0)
		if took := time.Since(began); took != 0 {
			t.Errorf("and then took %v", took)
		}
	})
}

// What an owner gives is not believed where it does not look right.
func TestCorruptBlockOfAnOwnerIsReadFromTheStore(t *testing.T) {
	t.Parallel()
	z := newZone(t, fetch.Config{BlockBytes: 1 << 10})
	z.fault(func(b []byte) ([]byte, error) {
		for i := range b {
			b[i] ^= 1
		}
		return b, nil
	})
	z.agents[1].elsewhere(sized(0, 100, 5000, 100))
	z.agents[1].want(key(0), 0)
	if n := z.agents[1].metric("fetch_corrupt_reads_total"); n != 0 {
		t.Errorf("%v corrupt reads", n)
	}
	asked := z.times(0)
	z.agents[1].want(key(0), 0)
	if n := z.times(0); n != asked || n == 0 {
		t.Errorf("asked %d times, then %d times", asked, n)
	}
}

// Two agents may each take the other for the owner.
func TestAgentsThatDisagreeDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(t, fetch.Config{})
		var group sync.WaitGroup
		z.agents[0].elsewhere(sized(0, 100))
		z.agents[0].index.late = make(chan struct{})
		z.owner = func(self int, _ int64) int { return 1 - self }
		for _, w := range z.agents[:2] {
			group.Go(func() { w.want(key(0), 0) })
		}
		synctest.Wait()
		began := time.Now()
		close(z.agents[0].index.late)
		group.Wait()
		if took := time.Since(began); took != 0 {
			t.Errorf("took %v", took)
		}
	})
}

func TestBlockServesWhatThereIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{BlockBytes: 1 << 10})
	done := w.elsewhere(sized(0, 5000))
	id, size := done.extents[0].Object, int64(len(done.object))
	for _, r := range [][2]int64{{0, 1 << 10}, {0, size}, {100, 200}, {1000, 3000}, {size - 1, size}} {
		got, err := w.reader.Block(t.Context(), id, size, r[0], r[1])
		if err != nil || !bytes.Equal(got, done.object[r[0]:r[1]]) {
			t.Errorf("bytes %d to %d: %d bytes, %v", r[0], r[1], len(got), err)
		}
	}
	for _, r := range [][2]int64{{-1, 5}, {5, 5}, {6, 5}, {0, size + 1}} {
		if _, err := w.reader.Block(t.Context(), id, size, r[0], r[1]); err == nil {
			t.Errorf("bytes %d to %d were given", r[0], r[1])
		}
	}
	if _, err := w.reader.Block(t.Context(), id, 1<<40, 0, 1<<30); err == nil {
		t.Error("a GiB was given")
	}
	if _, err := w.reader.Block(t.Context(), uuid.New(), 10, 0, 10); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("an object that is not there: %v", err)
	}
	w.objects.Set(faulty.Rule{Op: faulty.Get, Err: objstore.ErrUnavailable})
	if _, err := w.reader.Block(t.Context(), uuid.New(), 10, 0, 10); !errors.Is(err, fetch.ErrStorage) {
		t.Errorf("without a bucket: %v", err)
	}
}
