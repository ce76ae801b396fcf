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

func TestAgentGroups(t *testing.T) {
	metadatatest.RunAgentGroups(t, func(t testing.TB) (metadatatest.OpenGroup, metadatatest.Exec) {
		e := &faultEnv{url: testdb.Postgres(t)}
		behind := e.connect(t)
		exec := func(ctx context.Context, sql string, args ...any) error {
			_, err := behind.Exec(ctx, sql, args...)
			return err
		}
		return func(t testing.TB, agentGroup string) metadata.Store { return openGroup(t, e.url, agentGroup) }, exec
	})
}

func TestLeases(t *testing.T) {
	leasetest.Run(t, func(t testing.TB) (lease.Store, leasetest.NewKeys) {
		store := open(t, testdb.Postgres(t))
		return store, func(t testing.TB, n int) []lease.Key { return createTopic(t, store, n) }
	})
}
