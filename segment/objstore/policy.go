package objstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
)

// Policy says how often and how long a store is tried.
type Policy struct {
	// MaxAttempts is how often an operation is tried at most, the first time
	// included. Hedges are not counted. At least 1.
	MaxAttempts int
	// MinBackoff is the wait before the second attempt. It doubles with each
	// further one, up to MaxBackoff, and is spread by half up and down.
	MinBackoff time.Duration
	MaxBackoff time.Duration
	// AttemptTimeout ends an attempt that got no answer, so that another can
	// be made.
	AttemptTimeout time.Duration
	// HedgePut and HedgeGet are how long an attempt may take before a second
	// one is sent beside it; whichever succeeds first counts. 0 sends none.
	HedgePut time.Duration
	HedgeGet time.Duration
}

// DefaultPolicy is for a store behind a network. An operation against a store
// that answers nothing fails after about a minute, if its context lets it.
func DefaultPolicy() Policy {
	return Policy{
		MaxAttempts:    4,
		MinBackoff:     50 * time.Millisecond,
		MaxBackoff:     2 * time.Second,
		AttemptTimeout: 15 * time.Second,
		HedgePut:       time.Second,
		HedgeGet:       500 * time.Millisecond,
	}
}

// WithPolicy returns a store that tries the operations of inner again while
// they fail with ErrUnavailable, as p says, and that hedges Put and Get.
//
// Trying a Put again is safe because it is put-if-absent: an attempt whose
// answer was lost, or which a hedge overtook, makes a later one fail with
// ErrExists. So ErrExists, once more than one attempt was made, is checked: if
// the object under the key has the very bytes of body, the Put has succeeded.
// If only one attempt was made, ErrExists stands.
//
// An attempt that lost against its hedge is cancelled and not waited for. Its
// goroutine ends when the driver returns, which Store says is soon.
func WithPolicy(inner Store, p Policy) Store {
	retry := retrypolicy.NewBuilder[any]().
		HandleErrors(ErrUnavailable).
		WithMaxAttempts(max(p.MaxAttempts, 1)).
		WithJitterFactor(0.5).
		ReturnLastFailure()
	if p.MinBackoff > 0 && p.MaxBackoff > p.MinBackoff {
		retry = retry.WithBackoff(p.MinBackoff, p.MaxBackoff)
	} else {
		retry = retry.WithDelay(p.MinBackoff)
	}
	return &policyStore{inner: inner, policy: p, retry: failsafe.With(retry.Build())}
}

type policyStore struct {
	inner  Store
	policy Policy
	retry  failsafe.Executor[any]

	// calls and hedges count the hedgeable calls and the hedges under way.
	calls, hedges atomic.Int64
}

var _ Store = (*policyStore)(nil)

func (s *policyStore) Put(ctx context.Context, key string, body []byte) error {
	var begun atomic.Int32
	_, err := retried(ctx, s, func() (struct{}, error) {
		return hedged(ctx, s, s.policy.HedgePut, func(ctx context.Context) (struct{}, error) {
			begun.Add(1)
			_, err := attempt(ctx, s, func(ctx context.Context) (struct{}, error) {
				return struct{}{}, s.inner.Put(ctx, key, body)
			})
			if errors.Is(err, ErrExists) && begun.Load() > 1 {
				err = s.confirm(ctx, key, body, err)
			}
			return struct{}{}, err
		})
	})
	return err
}

// confirm decides what exists, an ErrExists for key, means after more than one
// attempt to put body: nil if the object is body.
func (s *policyStore) confirm(ctx context.Context, key string, body []byte, exists error) error {
	info, err := attempt(ctx, s, func(ctx context.Context) (Info, error) { return s.inner.Head(ctx, key) })
	switch {
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("%w: %s was there and is gone", ErrUnavailable, key)
	case err != nil:
		return fmt.Errorf("confirm put: %w", err)
	case info.Size != int64(len(body)):
		return exists
	case info.CRC32C != "":
		if info.CRC32C != CRC32C(body) {
			return exists
		}
		return nil
	}
	stored, err := attempt(ctx, s, func(ctx context.Context) ([]byte, error) { return s.inner.Get(ctx, key, 0, -1) })
	if err != nil {
		return fmt.Errorf("confirm put: %w", err)
	}
	if !bytes.Equal(stored, body) {
		return exists
	}
	return nil
}

func (s *policyStore) Get(ctx context.Context, key string, offset, length int64) ([]byte, error) {
	return retried(ctx, s, func() ([]byte, error) {
		return hedged(ctx, s, s.policy.HedgeGet, func(ctx context.Context) ([]byte, error) {
			return attempt(ctx, s, func(ctx context.Context) ([]byte, error) {
				return s.inner.Get(ctx, key, offset, length)
			})
		})
	})
}

func (s *policyStore) Head(ctx context.Context, key string) (Info, error) {
	return retried(ctx, s, func() (Info, error) {
		return attempt(ctx, s, func(ctx context.Context) (Info, error) { return s.inner.Head(ctx, key) })
	})
}

// List goes on behind the last key that came when it is tried again. The time
// of an attempt is not limited, since most of it may be the consumer's.
func (s *policyStore) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		_, err := retried(ctx, s, func() (struct{}, error) {
			for info, err := range s.inner.List(ctx, prefix, after) {
				if err != nil {
					return struct{}{}, err
				}
				after = info.Key
				if !yield(info, nil) {
					return struct{}{}, nil
				}
			}
			return struct{}{}, nil
		})
		if err != nil {
			yield(Info{}, err)
		}
	}
}

// Delete tries only those keys again that failed.
func (s *policyStore) Delete(ctx context.Context, keys ...string) error {
	_, err := retried(ctx, s, func() (struct{}, error) {
		_, err := attempt(ctx, s, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, s.inner.Delete(ctx, keys...)
		})
		if failed := KeyErrors(err); len(failed) > 0 {
			keys = make([]string, len(failed))
			for i, f := range failed {
				keys[i] = f.Key
			}
		}
		return struct{}{}, err
	})
	return err
}

// Check is tried once: whoever asks wants to know how things are.
func (s *policyStore) Check(ctx context.Context) error {
	_, err := attempt(ctx, s, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.inner.Check(ctx) })
	return err
}

// retried runs op until it succeeds, fails for good, or the attempts or ctx end.
func retried[T any](ctx context.Context, s *policyStore, op func() (T, error)) (T, error) {
	var last error
	v, err := s.retry.WithContext(ctx).Get(func() (any, error) {
		v, err := op()
		last = err
		return v, err
	})
	if err == nil {
		return v.(T), nil
	}
	var zero T
	if ctx.Err() != nil && last != nil && !errors.Is(last, ctx.Err()) {
		return zero, fmt.Errorf("%w, after %v", context.Cause(ctx), last)
	}
	return zero, err
}

// attempt runs op once, for as long as the policy lets an attempt take.
func attempt[T any](ctx context.Context, s *policyStore, op func(ctx context.Context) (T, error)) (T, error) {
	if s.policy.AttemptTimeout <= 0 {
		return op(ctx)
	}
	attemptCtx, cancel := context.WithTimeout(ctx, s.policy.AttemptTimeout)
	defer cancel()
	v, err := op(attemptCtx)
	if err != nil && attemptCtx.Err() != nil && ctx.Err() == nil {
		return v, fmt.Errorf("%w: no answer within %s: %w", ErrUnavailable, s.policy.AttemptTimeout, err)
	}
	return v, err
}

// hedged runs op, and once more beside it if it takes longer than after. The
// first outcome that another attempt could not better is returned, and the
// other attempt cancelled. An attempt that failed with ErrUnavailable leaves it
// to the other one; if it is alone, it is not hedged but for the caller to retry.
func hedged[T any](ctx context.Context, s *policyStore, after time.Duration, op func(ctx context.Context) (T, error)) (T, error) {
	if after <= 0 {
		return op(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.calls.Add(1)
	defer s.calls.Add(-1)

	type outcome struct {
		v   T
		err error
	}
	outcomes := make(chan outcome, 2)
	begin := func() {
		go func() {
			v, err := op(ctx)
			outcomes <- outcome{v, err}
		}()
	}
	begin()
	underWay := 1
	timer := time.NewTimer(after)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			if s.mayHedge() {
				defer s.hedges.Add(-1)
				begin()
				underWay++
			}
		case o := <-outcomes:
			if underWay--; underWay == 0 || !errors.Is(o.err, ErrUnavailable) {
				return o.v, o.err
			}
		}
	}
}

// mayHedge counts a hedge if there may be one more. Hedges help against the few
// that are slow; if all are, they would only double the load.
func (s *policyStore) mayHedge() bool {
	if s.hedges.Add(1) > 1+s.calls.Load()/4 {
		s.hedges.Add(-1)
		return false
	}
	return true
}
