package faulty

import (
	"context"
	"fmt"
	"sync"
)

// Gate holds calls so that a test can decide when they go on. It is closed at
// first.
type Gate struct {
	reached chan struct{}
	pass1   chan struct{}

	once sync.Once
	open chan struct{}
}

// gateCalls is how many calls that nobody awaited a gate can hold.
const gateCalls = 1024

// NewGate returns a closed gate.
func NewGate() *Gate {
	return &Gate{
		reached: make(chan struct{}, gateCalls),
		pass1:   make(chan struct{}),
		open:    make(chan struct{}),
	}
}

// Await waits until a call has reached the gate. Each call is awaited once.
func (g *Gate) Await(ctx context.Context) error {
	select {
	case <-g.reached:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no call reached the gate: %w", ctx.Err())
	}
}

// Release lets one call pass, and waits for one if none is there.
func (g *Gate) Release(ctx context.Context) error {
	select {
	case g.pass1 <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no call is at the gate: %w", ctx.Err())
	}
}

// Open lets all calls pass, now and later.
func (g *Gate) Open() { g.once.Do(func() { close(g.open) }) }

// pass announces a call and holds it until it may go on.
func (g *Gate) pass(ctx context.Context) error {
	select {
	case <-g.open:
		return nil
	default:
	}
	select {
	case g.reached <- struct{}{}:
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-g.pass1:
		return nil
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
