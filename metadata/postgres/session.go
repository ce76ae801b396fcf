package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// keepAlive and tcpUserTimeout bound how long a silent network goes unnoticed on
// our side of a connection; sessionSettings do the same for the server's side.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3}

const (
	tcpUserTimeout = 4 * time.Second
	connectTimeout = 5 * time.Second
)

// sessionSettings hold for every session, unless the URL sets them.
var sessionSettings = map[string]string{
	// A statement that its caller has given up must end, and one that does not
	// get its locks must not hold up those that queue behind it.
	"statement_timeout": "10s",
	"lock_timeout":      "5s",
	// An agent that freezes inside a transaction would hold its row locks,
	// whatever became of its leases.
	"idle_in_transaction_session_timeout": "1500ms",
	// The session of a dead agent ends: while it runs a statement, or within
	// seconds if its network went silent. Keep-alives alone do not notice a
	// peer that is silent while data are on their way to it.
	"client_connection_check_interval": "500ms",
	"tcp_keepalives_idle":              "2",
	"tcp_keepalives_interval":          "1",
	"tcp_keepalives_count":             "3",
	"tcp_user_timeout":                 fmt.Sprint(tcpUserTimeout.Milliseconds()),
	"default_transaction_isolation":    "read committed",
	"jit":                              "off",
}

// planSettings are for sessions whose statements all have one right plan, an
// index look-up for each of a list of keys, also where tables are small and
// nobody has gathered statistics.
var planSettings = map[string]string{
	"plan_cache_mode":  "force_generic_plan",
	"enable_seqscan":   "off",
	"enable_hashjoin":  "off",
	"enable_mergejoin": "off",
}

// parse makes the configuration that all pools have in common.
func (o *Options) parse(url string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	params := cfg.ConnConfig.RuntimeParams
	if value, ok := params[allowUnsafeParameter]; ok {
		delete(params, allowUnsafeParameter)
		o.AllowUnsafe = value == "true"
	}
	for name, value := range sessionSettings {
		if _, ok := params[name]; !ok {
			params[name] = value
		}
	}
	params["application_name"] = applicationName(o.Session, o.AgentID)
	if o.Schema != "" {
		params["search_path"] = pgx.Identifier{o.Schema}.Sanitize()
	}

	dialer := &net.Dialer{KeepAliveConfig: keepAlive, Control: setUserTimeout}
	cfg.ConnConfig.DialFunc = dialer.DialContext
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectTimeout
	}
	allowUnsafe, schema, past := o.AllowUnsafe, o.Schema, o.history()
	cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if err := checkServer(ctx, conn, allowUnsafe); err != nil {
			return err
		}
		if err := checkSchema(ctx, conn, schema); err != nil {
			return err
		}
		return past.check(ctx, conn)
	}
	return cfg, nil
}

// applicationName is the name by which the sessions of an agent that is believed
// dead are found. What identifies them comes first: the server cuts names at 63
// bytes.
func applicationName(session uuid.UUID, agentID string) string {
	return fmt.Sprintf("streamhouse/%s/%s", session, agentID)
}

// newPool makes a pool of at most size connections, with settings besides those
// of all sessions. It connects when it is used.
func newPool(common *pgxpool.Config, size int32, settings map[string]string) (*pgxpool.Pool, error) {
	cfg := common.Copy()
	cfg.MaxConns = size
	maps.Copy(cfg.ConnConfig.RuntimeParams, settings)
	return pgxpool.NewWithConfig(context.Background(), cfg)
}

// Reasons to refuse a server.
var (
	errStandby = errors.New("the server is a standby (pg_is_in_recovery): give the URL of the primary")
	errNoFsync = errors.New("the server runs with fsync=off and would lose acknowledged records: set fsync=on" +
		" (or, in tests only, add " + allowUnsafeParameter + "=true to the URL)")
	errAsyncCommit = errors.New("synchronous_commit cannot be set to on: acknowledged records would be lost")
)

// checkServer refuses a server that would not keep what it acknowledges. It makes
// sure of synchronous_commit, which the server or the role may have set to less,
// or to more.
func checkServer(ctx context.Context, conn *pgx.Conn, allowUnsafe bool) error {
	var (
		standby                  bool
		fsync, synchronousCommit string
	)
	err := conn.QueryRow(ctx, `SELECT pg_is_in_recovery(), current_setting('fsync'), set_config('synchronous_commit',
		CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)`,
	).Scan(&standby, &fsync, &synchronousCommit)
	switch {
	case err != nil:
		return err
	case standby:
		return errStandby
	case fsync != "on" && !allowUnsafe:
		return errNoFsync
	case synchronousCommit != "on" && synchronousCommit != "remote_apply":
		return errAsyncCommit
	}
	return nil
}
