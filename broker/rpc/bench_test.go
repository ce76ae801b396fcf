package rpc

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

func BenchmarkCommit(b *testing.B) {
	v := newView()
	start(b, options{view: v, id: "holder", handlers: Handlers{Commit: committed}})
	caller := start(b, options{view: v, id: "caller"})
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("batches=%d", n), func(b *testing.B) {
			c := commitOf("holder", n)
			for b.Loop() {
				if _, err := caller.Commit(b.Context(), c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkBlock(b *testing.B) {
	v := newView()
	content := make([]byte, 8<<20)
	start(b, options{view: v, id: "owner", handlers: Handlers{
		Block: func(_ context.Context, _ segment.ID, _, from, to int64) ([]byte, error) { return content[from:to], nil },
	}})
	reader := start(b, options{view: v, id: "reader"})
	for _, size := range []int64{512 << 10, 8 << 20} {
		b.Run(fmt.Sprintf("KiB=%d", size>>10), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if _, err := reader.Block(b.Context(), "owner", uuid.Nil, size, 0, size); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFollow tells growth of n partitions, one after the other.
func BenchmarkFollow(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("partitions=%d", n), func(b *testing.B) {
			v := newView()
			feed := newChannelFeed()
			start(b, options{view: v, id: "holder", handlers: Handlers{Feed: func(metadata.Agent) Feed { return feed }}})
			caller := start(b, options{view: v, id: "follower"})
			news := make([]metadata.Growth, n)
			keys := make([]lease.Key, n)
			for i := range news {
				keys[i].Partition = int32(i)
				news[i] = metadata.Growth{Key: keys[i], Extents: []metadata.Extent{{AppendTime: -1, Length: 16 << 10}}}
			}
			f := newChannelFollower(keys...)
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error)
			go func() { ended <- caller.Follow(ctx, "holder", f) }()
			await(b, "a wish", feed.wants)
			for b.Loop() {
				for i := range news {
					w := &news[i].Watermarks
					w.High, w.LastStable = w.High+10, w.High+10
					e := &news[i].Extents[0]
					e.BaseOffset, e.EndOffset = w.High-10, w.High
				}
				feed.news <- news
				for len(<-f.grown) == 0 { // a sign of life
				}
			}
			cancel()
			go func() {
				for range f.grown {
				}
			}()
			if err := <-ended; err != nil {
				b.Error(err)
			}
			close(f.grown)
		})
	}
}
