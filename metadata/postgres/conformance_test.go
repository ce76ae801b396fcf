package postgres_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/lease/leasetest"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/metadatatest"
	"github.com/streamhouse/streamhouse/metadata/postgres"
)

// TestConformance runs the suites side by side on clusters in one database, two of them
// in schemas of their own: none meets the locks, the agents or the rows of another.
func TestConformance(t *testing.T) {
	url := testdb.Postgres(t)
	for _, suite := range []struct {
		name, schema string
		run          func(t *testing.T, c cluster)
	}{
		{"Metadata", "", func(t *testing.T, c cluster) {
			metadatatest.Run(t, func(t testing.TB) (metadata.Store, metadatatest.Exec) { return c.open(t, ""), c.exec(t) })
		}},
		{"AgentGroups", "streamhouse_a-b", func(t *testing.T, c cluster) {
			metadatatest.RunAgentGroups(t, func(t testing.TB) (metadatatest.OpenGroup, metadatatest.Exec) {
				return func(t testing.TB, agentGroup string) metadata.Store { return c.open(t, agentGroup) }, c.exec(t)
			})
		}},
		{"Leases", "streamhouse_a_b", func(t *testing.T, c cluster) { leasetest.Run(t, c.leases) }},
	} {
		t.Run(suite.name, func(t *testing.T) {
			t.Parallel()
			suite.run(t, cluster{url, suite.schema})
		})
	}
}

// cluster is one in a schema of a database; in that of the server's choice if it has none.
type cluster struct{ url, schema string }

func (c cluster) open(t testing.TB, agentGroup string) *postgres.Store {
	t.Helper()
	return openWith(t, c.url, postgres.Options{Schema: c.schema, AgentGroup: agentGroup})
}

// exec returns what runs statements behind the stores' back.
func (c cluster) exec(t testing.TB) metadatatest.Exec {
	t.Helper()
	behind := (&faultEnv{url: c.url}).connect(t)
	if c.schema != "" {
		if _, err := behind.Exec(t.Context(), `SET search_path TO `+pgx.Identifier{c.schema}.Sanitize()); err != nil {
			t.Fatal(err)
		}
	}
	return func(ctx context.Context, sql string, args ...any) error {
		_, err := behind.Exec(ctx, sql, args...)
		return err
	}
}

func (c cluster) leases(t testing.TB) leasetest.Setup {
	store, others := c.open(t, ""), c.open(t, "others")
	return leasetest.Setup{
		Store:   store,
		NewKeys: func(t testing.TB, n int) []lease.Key { return createTopic(t, store, n) },
		Strangers: func(t testing.TB, n int) (string, []lease.Key) {
			a := metadata.Agent{ID: uuid.NewString(), Session: uuid.New(), Group: "others"}
			if _, err := others.Register(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			return a.ID, createTopic(t, others, n)
		},
	}
}
