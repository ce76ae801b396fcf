// Package prune removes from the metadata store what nobody can ask for any
// more: every agent does a little of it, now and then, and needs no lease for
// it, since the store decides what is old and calls may overlap.
package prune

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/metadata"
)

// The pace. Calls are bounded, and far enough apart that commits hardly notice
// them, also where there is one writer.
const (
	interval = 10 * time.Minute       // the mean time between looks
	pause    = 250 * time.Millisecond // between calls while there is more to do
	timeout  = 15 * time.Second       // of one call
)

// Loop is the work of one agent.
type Loop struct {
	store metadata.Pruner
	rows  prometheus.Counter
	log   *slog.Logger
}

// New returns a loop whose work is counted in streamhouse_prune_rows_total.
func New(store metadata.Pruner, reg prometheus.Registerer, log *slog.Logger) *Loop {
	rows := prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "streamhouse", Subsystem: "prune", Name: "rows_total",
		Help: "Rows of the metadata store that were removed or emptied, as nobody can ask for them any more.",
	})
	reg.MustRegister(rows)
	return &Loop{store, rows, log}
}

// Run prunes until ctx ends, and returns nil then.
func (l *Loop) Run(ctx context.Context) error {
	timer := time.NewTimer(someTime())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		rows, err := l.prune(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			l.log.Warn("prune of the metadata store failed, will try again", "error", err)
			timer.Reset(someTime())
		case rows >= metadata.PruneRows:
			timer.Reset(pause)
		default:
			timer.Reset(someTime())
		}
	}
}

func (l *Loop) prune(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := l.store.Prune(ctx)
	l.rows.Add(float64(rows))
	return rows, err
}

// someTime is the time to the next look, spread so that agents that started
// together do not look together.
func someTime() time.Duration { return interval/2 + rand.N(interval) }
