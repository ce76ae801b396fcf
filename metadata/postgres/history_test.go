package postgres

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

// newHistory returns a history with its log and the number of its changes.
func newHistory() (h *history, log *strings.Builder, changes *int) {
	log, changes = new(strings.Builder), new(int)
	return &history{
		log:     slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		changed: func() { *changes++ },
	}, log, changes
}

func TestAnotherHistoryIsReportedOnce(t *testing.T) {
	h, log, changes := newHistory()
	for _, step := range []struct {
		now  line
		want int // changes so far
	}{
		{line{"7", "00000001"}, 0},
		{line{"7", "00000001"}, 0},
		{line{"7", "00000002"}, 1}, // promoted
		{line{"7", "00000002"}, 1},
		{line{"8", "00000002"}, 2}, // restored elsewhere
	} {
		if h.note(step.now); *changes != step.want || strings.Count(log.String(), "level=ERROR") != step.want {
			t.Errorf("%+v: %d changes, want %d; log:\n%s", step.now, *changes, step.want, log)
		}
	}
}

func TestHistoryOfAServer(t *testing.T) {
	url := testdb.Postgres(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	h, log, changes := newHistory()
	for range 2 {
		if err := h.check(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
	}
	if h.known.system == "" || h.known.timeline != "00000001" || *changes != 0 || log.Len() > 0 {
		t.Errorf("history %+v, %d changes; log:\n%s", h.known, *changes, log)
	}

	// A role that may not ask is none the worse for it.
	for _, sql := range []string{`REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC`, `SET ROLE pg_monitor`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	h, log, changes = newHistory()
	for range 2 {
		if err := h.check(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
	}
	if h.known != (line{}) || *changes != 0 || strings.Count(log.String(), "level=DEBUG") != 1 {
		t.Errorf("history %+v, %d changes; log:\n%s", h.known, *changes, log)
	}
}
