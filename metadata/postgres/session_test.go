package postgres

import (
	"context"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

func TestSessionSettings(t *testing.T) {
	session := uuid.New()
	url := testdb.Postgres(t) + "&lock_timeout=3s&" + allowUnsafeParameter + "=true"
	store, err := Open(t.Context(), url, Options{AgentID: "a", Session: session})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, db := range []database{store.commits, store.leases, store.others} {
		err := db.use(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
			for name, want := range map[string]string{
				"synchronous_commit":                  "on",
				"statement_timeout":                   "10s",
				"lock_timeout":                        "3s", // the URL's
				"idle_in_transaction_session_timeout": "1500ms",
				"client_connection_check_interval":    "500ms",
				"tcp_keepalives_idle":                 "2",
				"tcp_keepalives_interval":             "1",
				"tcp_keepalives_count":                "3",
				"tcp_user_timeout":                    "4000",
				"transaction_isolation":               "read committed",
				"application_name":                    "streamhouse/" + session.String() + "/a",
			} {
				var got string
				if err := conn.QueryRow(ctx, `SELECT current_setting($1)`, name).Scan(&got); err != nil {
					return err
				}
				if got != want {
					t.Errorf("%s is %q, not %q", name, got, want)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	url := testdb.Postgres(t)
	for name, tc := range map[string]struct{ url, want string }{
		"a server that does not flush": {url, "fsync=off"},
		"a URL that is none":           {"postgres://:bad:url", "cannot parse"},
		"a database that is not there": {strings.Replace(url, "?", "_none?", 1), "does not exist"},
		"a server that is not there":   {"postgres://postgres@127.0.0.1:1/none?sslmode=disable", "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			store, err := Open(t.Context(), tc.url, Options{})
			if err == nil {
				t.Fatal("was opened", store.Close())
			}
			if !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error does not say %q in one line: %v", tc.want, err)
			}
		})
	}
}
