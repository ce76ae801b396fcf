package objstore

import (
	"context"
	"io"
)

// NewReaderAt returns a reader of the object of size bytes under key. Each read
// is one Get under ctx, so it suits readers of few large pieces.
func NewReaderAt(ctx context.Context, store Store, key string, size int64) io.ReaderAt {
	return &readerAt{ctx: ctx, store: store, key: key, size: size}
}

// readerAt holds a context because io.ReaderAt has no room for one.
type readerAt struct {
	ctx   context.Context
	store Store
	key   string
	size  int64
}

func (r *readerAt) ReadAt(b []byte, offset int64) (int, error) {
	want := min(int64(len(b)), r.size-offset)
	if want <= 0 {
		if len(b) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	data, err := r.store.Get(r.ctx, r.key, offset, want)
	if err != nil {
		return 0, err
	}
	if n := copy(b, data); n < len(b) {
		return n, io.EOF
	}
	return len(b), nil
}
