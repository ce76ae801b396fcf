package apachekafka

import (
	"context"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// Run starts a broker for this test, which stops it when it ends; the log of a failed test is shown.
func Run(t testing.TB) *Broker {
	t.Helper()
	const limit = time.Minute // for the start and for the stop
	java, err := toolchain.NewJava(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	broker, err := New(t.Context(), java, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	starting, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := broker.Start(starting); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(broker.LogTail())
		}
		// The test's context has ended by now.
		stopping, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
		defer cancel()
		if err := broker.Stop(stopping); err != nil {
			t.Error(err)
		}
	})
	return broker
}
