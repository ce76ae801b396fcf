package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/streamhouse/streamhouse/segment/objstore"
)

// objects is the bucket as one life of an agent reaches it.
type objects struct {
	objstore.Store // the bucket; of which an agent puts, gets and looks
	at             *site
}

// request makes one request. do must not wait. again may happen when the caller
// has given up.
func (o *objects) request(ctx context.Context, changes bool, do func(context.Context) error) error {
	w := o.at.world
	fate := w.faults.bucketFate(o.at.random)
	if !o.at.frozen.pass(o.at.life.Done()) {
		return errDead
	}
	if fate == refused {
		o.at.sleep(ctx, o.at.random.latency(hop))
		return fmt.Errorf("%w: %w", objstore.ErrUnavailable, errRefused)
	}
	arrive := func() { _ = do(context.WithoutCancel(ctx)) }
	if err := o.travel(ctx); err != nil {
		if changes && o.at.random.oneIn(2) {
			w.later(o.at, arrive)
		}
		return err
	}
	switch fate {
	case lost:
		return fmt.Errorf("%w: %w", objstore.ErrUnavailable, errLost)
	case late:
		if changes {
			w.later(o.at, arrive)
		}
		return fmt.Errorf("%w: %w", objstore.ErrUnavailable, errLost)
	}
	err := do(context.WithoutCancel(ctx))
	if fate == answerLost {
		return fmt.Errorf("%w: %w", objstore.ErrUnavailable, errLost)
	}
	if back := o.travel(ctx); back != nil {
		return back
	}
	return err
}

func (o *objects) travel(ctx context.Context) error {
	w := o.at.world
	arrived := o.at.sleep(ctx, o.at.random.latency(time.Duration(w.faults.bucketLatency.Load()))) &&
		o.at.noObjects.pass(ctx.Done()) && w.noBucket.pass(ctx.Done())
	o.at.frozen.pass(o.at.life.Done())
	switch {
	case o.at.isDead():
		return fmt.Errorf("%w: %w", objstore.ErrUnavailable, errDead)
	case !arrived:
		return ctx.Err()
	}
	return nil
}

// Put implements objstore.Store.
func (o *objects) Put(ctx context.Context, key string, body []byte) error {
	o.at.world.faults.puts.Add(1)
	return o.request(ctx, true, func(ctx context.Context) error { return o.at.world.mutant.put(ctx, o.Store, key, body) })
}

// Get implements objstore.Store.
func (o *objects) Get(ctx context.Context, key string, offset, length int64) (body []byte, err error) {
	err = o.request(ctx, false, func(ctx context.Context) (err error) {
		body, err = o.Store.Get(ctx, key, offset, length)
		return err
	})
	if err != nil {
		return nil, err
	}
	return body, nil
}

// Head implements objstore.Store.
func (o *objects) Head(ctx context.Context, key string) (info objstore.Info, err error) {
	err = o.request(ctx, false, func(ctx context.Context) (err error) {
		info, err = o.Store.Head(ctx, key)
		return err
	})
	if err != nil {
		return objstore.Info{}, err
	}
	return info, nil
}

// Check implements objstore.Store.
func (o *objects) Check(ctx context.Context) error { return objstore.Probe(ctx, o) }
