package postgres_test

import (
	"context"
	"testing"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/lease/leasetest"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/metadatatest"
)

func TestMetadata(t *testing.T) {
	metadatatest.Run(t, func(t testing.TB) (metadata.Store, metadatatest.Exec) {
		e := &faultEnv{url: testdb.Postgres(t)}
		store := open(t, e.url)
		behind := e.connect(t)
		return store, func(ctx context.Context, sql string, args ...any) error {
			_, err := behind.Exec(ctx, sql, args...)
			return err
		}
	})
}

func TestLeases(t *testing.T) {
	leasetest.Run(t, func(t testing.TB) (lease.Store, leasetest.NewKeys) {
		store := open(t, testdb.Postgres(t))
		return store, func(t testing.TB, n int) []lease.Key { return createTopic(t, store, n) }
	})
}
