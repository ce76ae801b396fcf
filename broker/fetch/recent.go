package fetch

import (
	"sync"

	"github.com/streamhouse/streamhouse/segment"
)

// recent keeps the objects that this agent wrote last, whole and as they were
// uploaded, up to a limit of bytes: first in, first out.
type recent struct {
	limit int64

	mu      sync.RWMutex
	objects map[segment.ID][]byte
	order   []segment.ID // as they came; some may have been removed
	bytes   int64
}

// put keeps the object without copying it.
func (r *recent) put(id segment.ID, object []byte) {
	size := int64(len(object))
	r.mu.Lock()
	defer r.mu.Unlock()
	if size > r.limit || r.objects[id] != nil {
		return
	}
	for r.bytes+size > r.limit {
		r.drop(r.order[0])
		r.order = r.order[1:]
	}
	r.objects[id] = object
	r.order = append(r.order, id)
	r.bytes += size
}

// get returns nil if the object is not kept.
func (r *recent) get(id segment.ID) []byte {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.objects[id]
}

// remove drops one object.
func (r *recent) remove(id segment.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(id)
}

func (r *recent) drop(id segment.ID) {
	r.bytes -= int64(len(r.objects[id]))
	delete(r.objects, id)
}
