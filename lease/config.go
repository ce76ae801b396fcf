package lease

import (
	"errors"
	"time"
)

// Config sets the times of a Manager.
type Config struct {
	// Duration is how long a lease lasts from its acquisition or renewal on,
	// by the store's clock. A killed agent's partitions are free after it.
	Duration time.Duration
	// RenewInterval is the time between two renewals. It is jittered by 10 %,
	// so that agents which started together do not renew together.
	RenewInterval time.Duration
	// Margin is how long before the store's end of a lease its holder stops
	// using it. It covers the drift of two clocks over one Duration.
	Margin time.Duration
	// RequestTimeout bounds one request to the store.
	RequestTimeout time.Duration
	// HeldByOtherFor is how long the manager believes that another agent has a
	// lease before it asks the store again.
	HeldByOtherFor time.Duration
}

// DefaultConfig returns the times that suit a cluster.
func DefaultConfig() Config {
	return Config{
		Duration:       30 * time.Second,
		RenewInterval:  20 * time.Second,
		Margin:         2 * time.Second,
		RequestTimeout: 5 * time.Second,
		HeldByOtherFor: 500 * time.Millisecond,
	}
}

// renewJitter is the share of RenewInterval by which a renewal may come early
// or late.
const renewJitter = 0.1

// Validate says what is wrong with the configuration, if anything.
func (c *Config) Validate() error {
	latest := time.Duration(float64(c.RenewInterval) * (1 + renewJitter))
	switch {
	case c.Duration <= 0 || c.RenewInterval <= 0 || c.Margin <= 0 || c.RequestTimeout <= 0 || c.HeldByOtherFor <= 0:
		return errors.New("lease: every time must be positive")
	case latest >= c.Duration-c.Margin:
		return errors.New("lease: the renewal interval must leave time to retry before the lease ends")
	}
	return nil
}
