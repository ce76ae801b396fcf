package postgres

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// history watches over the history of the database: which cluster it is, and on
// which timeline, that is after how many promotions and restores. Safe for
// concurrent use.
type history struct {
	log     *slog.Logger
	changed func()
	unknown sync.Once // the role may not ask

	mu    sync.Mutex
	known line
}

// line is one history; the zero value is none.
type line struct{ system, timeline string }

func (o *Options) history() *history {
	h := &history{log: o.Log, changed: o.HistoryChanged}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.changed == nil {
		h.changed = func() {}
	}
	return h
}

// check compares the history of a new connection to a primary with that of the
// one before. Another is legitimate after a fail-over without loss, which cannot
// be told from one with loss: it is reported, and no reason to refuse.
func (h *history) check(ctx context.Context, conn *pgx.Conn) error {
	var now line
	// The name of the log's file has the timeline of today; the control file has
	// that of the last checkpoint, which may be minutes old.
	err := conn.QueryRow(ctx, `SELECT system_identifier::text, substring(pg_walfile_name(pg_current_wal_lsn()) FOR 8)
		FROM pg_control_system()`).Scan(&now.system, &now.timeline)
	var reported *pgconn.PgError
	switch {
	case errors.As(err, &reported) && slices.Contains([]string{"42501", "42883", "0A000"}, reported.Code): // not allowed, or not there
		h.unknown.Do(func() { h.log.Debug("the database's history is not known", "error", err) })
		return nil
	case err != nil:
		return err
	}
	h.note(now)
	return nil
}

// note remembers the history, and reports that it is another.
func (h *history) note(now line) {
	h.mu.Lock()
	before := h.known
	h.known = now
	h.mu.Unlock()
	if before == now || before == (line{}) {
		return
	}
	h.log.Error("the database has another history: it failed over or was restored; what was acknowledged last is lost if the replica was not synchronous",
		"system", now.system, "timeline", now.timeline, "system_before", before.system, "timeline_before", before.timeline)
	h.changed()
}
