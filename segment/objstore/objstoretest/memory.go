package objstoretest

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/segment/objstore"
)

// Memory is a store in memory, for tests that want no disk and no network, as
// those in a synctest bubble do. It passes Run.
type Memory struct {
	mu      sync.Mutex
	objects map[string]memoryObject
}

type memoryObject struct {
	body    []byte
	modTime time.Time
}

var _ objstore.Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{objects: make(map[string]memoryObject)} }

// Put implements objstore.Store.
func (m *Memory) Put(ctx context.Context, key string, body []byte) error {
	if err := objstore.CheckPut(key, body); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[key]; ok {
		return fmt.Errorf("put %s: %w", key, objstore.ErrExists)
	}
	m.objects[key] = memoryObject{body: bytes.Clone(body), modTime: time.Now()}
	return nil
}

func (m *Memory) find(ctx context.Context, key string) (memoryObject, error) {
	if err := ctx.Err(); err != nil {
		return memoryObject{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[key]
	if !ok {
		return o, objstore.ErrNotFound
	}
	return o, nil
}

// Get implements objstore.Store.
func (m *Memory) Get(ctx context.Context, key string, offset, length int64) ([]byte, error) {
	if err := objstore.CheckGet(key, offset, length); err != nil {
		return nil, err
	}
	o, err := m.find(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	size := int64(len(o.body))
	if length == -1 {
		length = size - offset
	}
	if length <= 0 || length > size-offset {
		return nil, fmt.Errorf("get %s: %w: %d bytes at %d of %d", key, objstore.ErrRange, length, offset, size)
	}
	return bytes.Clone(o.body[offset : offset+length]), nil
}

// Head implements objstore.Store.
func (m *Memory) Head(ctx context.Context, key string) (objstore.Info, error) {
	if err := objstore.CheckKey(key); err != nil {
		return objstore.Info{}, err
	}
	o, err := m.find(ctx, key)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("head %s: %w", key, err)
	}
	info := o.info(key)
	info.CRC32C = objstore.CRC32C(o.body)
	return info, nil
}

func (o memoryObject) info(key string) objstore.Info {
	return objstore.Info{Key: key, Size: int64(len(o.body)), ModTime: o.modTime}
}

// List implements objstore.Store. It yields what was there when it began.
func (m *Memory) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		m.mu.Lock()
		objects := maps.Clone(m.objects)
		m.mu.Unlock()
		for _, key := range slices.Sorted(maps.Keys(objects)) {
			if err := ctx.Err(); err != nil {
				yield(objstore.Info{}, fmt.Errorf("list %q: %w", prefix, err))
				return
			}
			if key > after && strings.HasPrefix(key, prefix) && !yield(objects[key].info(key), nil) {
				return
			}
		}
	}
}

// Delete implements objstore.Store.
func (m *Memory) Delete(ctx context.Context, keys ...string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		delete(m.objects, key)
	}
	return nil
}

// Check implements objstore.Store.
func (m *Memory) Check(ctx context.Context) error { return objstore.Probe(ctx, m) }
