package compattests

import (
	"bytes"
	"context"
	"encoding/gob"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/streamhouse/streamhouse/internal/check"
)

// evidenceTables are those that say what became of a log.
var evidenceTables = []string{"topics", "agents", "partitions", "leader_epochs", "objects", "extents", "producers", "group_offsets", "groups"}

// keepEvidence writes down what is needed to understand a failure: the history and what is wrong with it, the agents'
// logs, and the database. With -artifacts it outlasts the test.
func (r *mixRound) keepEvidence(t *testing.T, history check.History, anomalies []check.Anomaly) {
	t.Helper()
	dir := t.ArtifactDir()
	t.Logf("evidence is in %s", dir)
	keep := func(name string, write func(io.Writer) error) {
		if err := writeFile(filepath.Join(dir, name), write); err != nil {
			t.Error(err)
		}
	}
	keep(r.topic+".history.gob", func(w io.Writer) error { return gob.NewEncoder(w).Encode(history) })
	keep(r.topic+".anomalies.txt", func(w io.Writer) error {
		for _, a := range anomalies {
			if _, err := fmt.Fprintln(w, a); err != nil {
				return err
			}
		}
		return nil
	})
	for _, a := range r.mix.agents {
		keep(a.ID()+".log", func(w io.Writer) error {
			log, err := os.ReadFile(a.LogPath())
			if err != nil {
				return err
			}
			_, err = w.Write(log)
			return err
		})
	}
	ctx := deadline(t, mixRecovery)
	database := r.mix.connect(ctx, t)
	defer database.Close(context.WithoutCancel(ctx))
	for _, table := range evidenceTables {
		keep(table+".csv", func(w io.Writer) error {
			_, err := database.PgConn().CopyTo(ctx, w, "COPY "+table+" TO STDOUT WITH (FORMAT csv, HEADER)")
			return err
		})
	}
}

// judgeLogs looks through the agents' logs for what no fault excuses: a panic, which assertions make too, or a race.
func (m *faultMix) judgeLogs(t *testing.T) {
	t.Helper()
	for _, a := range m.agents {
		log, err := os.ReadFile(a.LogPath())
		if err != nil {
			t.Error(err)
		}
		for _, sign := range []string{"panic: ", "fatal error: ", "WARNING: DATA RACE"} {
			if at := bytes.Index(log, []byte(sign)); at >= 0 {
				t.Errorf("agent %s: %s", a.ID(), log[at:min(at+4000, len(log))])
			}
		}
	}
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("keep evidence: %w", err)
	}
	if err := write(f); err != nil {
		f.Close()
		return fmt.Errorf("keep %s: %w", filepath.Base(path), err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("keep %s: %w", filepath.Base(path), err)
	}
	return nil
}
