package main

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

// TestStartIsBounded starts agents on servers that accept connections and never
// answer: they give up with one line.
func TestStartIsBounded(t *testing.T) {
	s := sharedStores(t)
	database, bucket := testdb.NewProxy(t, s.metadata), testdb.NewProxy(t, s.objects)
	database.Pause(testdb.ToClient)
	bucket.Pause(testdb.ToClient)
	for _, test := range []struct {
		name   string
		stores stores
		want   string
	}{
		{"database", stores{database.URL(), s.objects}, "metadata_url: "},
		{"bucket", stores{s.metadata, bucket.URL()}, "object_url: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			settings := defaultSettings()
			settings.Address, settings.AdminAddress = "127.0.0.1:0", "127.0.0.1:0"
			settings.MetadataURL, settings.ObjectURL = test.stores.metadata, test.stores.objects
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := build(ctx, settings, slog.New(slog.DiscardHandler), new(slog.LevelVar))
			if err == nil {
				t.Fatal("the agent has started")
			}
			got := oneLine(err.Error())
			if !strings.HasPrefix(got, test.want) || !strings.HasSuffix(got, ": check the URL, and that the server runs and can be reached from here") {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestOneLine(t *testing.T) {
	for message, want := range map[string]string{
		"simple": "simple",
		"failed to connect to `db`:\n\t10.0.0.1:5432 (db): refused\n\t10.0.0.1:5432 (db): refused: check\n": "failed to connect to `db`: 10.0.0.1:5432 (db): refused: check",
		"one\n\ntwo": "one; two",
	} {
		if got := oneLine(message); got != want {
			t.Errorf("%q: got %q, want %q", message, got, want)
		}
	}
}

// TestMemoryLimit bounds the cache where the process's memory is bounded.
func TestMemoryLimit(t *testing.T) {
	s := defaultSettings()
	for limit, want := range map[int64]int64{400 << 20: 100 << 20, 4 << 30: 256 << 20, 1<<63 - 1: 256 << 20} {
		if got := s.fetchConfig(limit).CacheBytes; got != want {
			t.Errorf("with a limit of %d: cache of %d bytes, want %d", limit, got, want)
		}
	}
}

// TestStopBeforeReady stops an agent that waits for its database.
func TestStopBeforeReady(t *testing.T) {
	s := sharedStores(t)
	database := testdb.NewProxy(t, s.metadata)
	database.Pause(testdb.ToClient)
	settings := defaultSettings()
	settings.Address, settings.AdminAddress = "127.0.0.1:0", "127.0.0.1:0"
	settings.MetadataURL, settings.ObjectURL = database.URL(), s.objects
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := runAgent(ctx, settings); err != nil {
		t.Errorf("to be stopped is no error: %v", err)
	}
}
