package protocol

import (
	"context"
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

// request is one that takes memory in steps until it is whole, and then holds it.
type request struct {
	*holding
	steps []int64
	whole chan struct{}
}

// start has r take its memory on a goroutine of the bubble.
func (r *request) start(ctx context.Context) {
	go func() {
		for _, bytes := range r.steps {
			if err := r.grow(ctx, bytes); err != nil {
				return
			}
		}
		close(r.whole)
	}()
}

func (r *request) isWhole() bool {
	synctest.Wait()
	select {
	case <-r.whole:
		return true
	default:
		return false
	}
}

func newRequest(m *memory, steps ...int64) *request {
	return &request{&holding{of: m, peer: new(peer)}, steps, make(chan struct{})}
}

func unobserved(float64) {}

// However large requests are and however many: as long as those that are whole end,
// all become whole, and no more than one exceeds the memory.
func TestRequestsNeverWaitForEachOther(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const size = 100
		sizes := rapid.SliceOfN(rapid.SliceOfN(rapid.Int64Range(1, size), 1, 5), 1, 20).Draw(rt, "requests")
		synctest.Test(t, func(t *testing.T) {
			m := newMemory(size, unobserved)
			var waiting []*request
			for _, steps := range sizes {
				r := newRequest(m, steps...)
				r.start(t.Context())
				waiting = append(waiting, r)
			}
			for len(waiting) > 0 {
				synctest.Wait()
				m.mu.Lock()
				exceeding := int64(0)
				if m.exceeds != nil {
					exceeding = m.exceeds.bytes
				}
				if m.left+exceeding < 0 {
					t.Errorf("%d bytes left, of which one request has %d", m.left, exceeding)
				}
				m.mu.Unlock()
				i := slices.IndexFunc(waiting, (*request).isWhole)
				if i < 0 {
					t.Fatalf("%d requests wait for each other", len(waiting))
				}
				waiting[i].release()
				waiting = slices.Delete(waiting, i, i+1)
			}
			if m.left != size {
				t.Errorf("%d of %d bytes at the end", m.left, size)
			}
		})
	})
}

func TestRequestsThatHaveBegunGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(100, unobserved)
		holder := newRequest(m, 40)
		exceeding, growing, starting := newRequest(m, 30, 60), newRequest(m, 30, 30), newRequest(m, 1)
		for _, r := range []*request{holder, exceeding, growing, starting} {
			r.start(t.Context())
			synctest.Wait()
		}
		if !exceeding.isWhole() || growing.isWhole() || starting.isWhole() {
			t.Error("not just the first that is refused may exceed the memory")
		}
		holder.release()
		if growing.isWhole() || starting.isWhole() {
			t.Error("a request starts before others that have begun")
		}
		exceeding.release()
		if !growing.isWhole() || !starting.isWhole() {
			t.Error("memory that was given back is not given on")
		}
		growing.release()
		starting.release()
	})
}

func TestOneThatGivesUpWaitingLetsOthersPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(100, unobserved)
		holder, large, small := newRequest(m, 60), newRequest(m, 50), newRequest(m, 40)
		holder.start(t.Context())
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		large.start(ctx)
		synctest.Wait()
		small.start(t.Context())
		if small.isWhole() {
			t.Error("a small request passed a large one")
		}
		cancel()
		if !small.isWhole() || large.isWhole() {
			t.Error("a request that has given up holds others back")
		}
		holder.release()
		small.release()
		if m.left != 100 {
			t.Errorf("%d bytes at the end", m.left)
		}
	})
}

// Peers that claim large requests and do not send them take memory from nobody.
func TestClaimsTakeNoMemory(t *testing.T) {
	const memory = 10 << 20
	inBubble(t, ServerConfig{MaxRequestMemory: memory}, map[int16]HandlerFunc{0: respond}, func(t *testing.T, f *fixture) {
		for _, sent := range []int{100, 64 << 10, 300 << 10} {
			for range 10 {
				claim := append(binary.BigEndian.AppendUint32(nil, memory), make([]byte, sent)...)
				f.dial().out <- claim
			}
		}
		synctest.Wait()
		for _, size := range []int{10, 100 << 10, 5 << 20} {
			c := f.dial()
			c.out <- produceFrame(size)
			c.want(1)
		}
	})
}

// A peer that takes no replies has its connection ended when others wait for the
// memory of its requests, and not before.
func TestPeersThatStallAreCutOffWhenOthersWait(t *testing.T) {
	const memory = 30 << 10
	inBubble(t, ServerConfig{MaxRequestMemory: memory}, map[int16]HandlerFunc{0: respond, keyHeartbeat: respond}, func(t *testing.T, f *fixture) {
		greedy := f.dial()
		greedy.out <- produceFrame(memory - 1000) // its reply is never read
		<-time.After(2 * stallLimit)              // the bubble's clock
		f.wantClosed(closeSlow, 0)
		honest := f.dial()
		honest.send(1, heartbeat("small"))
		honest.want(1)
		honest.out <- produceFrame(memory - 2000)
		synctest.Wait()
		begun := time.Now()
		honest.want(1)
		if waited := time.Since(begun); waited != stallLimit {
			t.Errorf("waited for %v", waited)
		}
		f.wantClosed(closeSlow, 1)
		f.wantLog("others waited")
	})
}

// What a request decodes to is memory too.
func TestDecodedFieldsTakeMemory(t *testing.T) {
	var answer chan struct{}
	handle := func(_ context.Context, req *Request) Reply {
		return Later(func(context.Context) kmsg.Response { <-answer; return req.Body.ResponseKind() })
	}
	inBubble(t, ServerConfig{}, map[int16]HandlerFunc{3: handle}, func(t *testing.T, f *fixture) {
		answer = make(chan struct{})
		metadata := kmsg.NewPtrMetadataRequest()
		metadata.Version = 12
		for range 10_000 {
			topic := kmsg.NewMetadataRequestTopic()
			topic.Topic = kmsg.StringPtr("topic")
			metadata.Topics = append(metadata.Topics, topic)
		}
		c := f.dial()
		c.send(1, metadata)
		synctest.Wait()
		if held, frame := gauge(f.metrics.requestMemory), len(frameOf(metadata, 1)); held < 2*float64(frame) {
			t.Errorf("%.0f bytes held for a frame of %d", held, frame)
		}
		close(answer)
		c.want(1)
	})
}
