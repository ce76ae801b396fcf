package compattests

import (
	"context"
	"crypto/tls"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/report"
	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// TestLimits shows that what docs/COMPATIBILITY.md calls a limit is one, and how clients meet the ones that they don't
// ask ApiVersions for.
func TestLimits(t *testing.T) {
	forEachTarget(t, harness.FastStores, func(t *testing.T, target target) {
		if target.name == "apachekafka" {
			return // these are limits of StreamHouse
		}
		t.Run("APIs", func(t *testing.T) { limitedAPIs(t, target) })
		t.Run("transactions", func(t *testing.T) {
			source := filepath.Join(toolchain.Root(), "java", "Transaction.java")
			printed := tool(t, "", source, strings.Join(target.bootstrap(), ","))
			if !strings.Contains(printed, "Transactions") || !strings.Contains(printed, "not supported") {
				t.Errorf("initTransactions failed with %q, want a message that says why", printed)
			}
		})
		t.Run("TLS", func(t *testing.T) {
			client := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
			conn, err := client.DialContext(deadline(t, 10*time.Second), "tcp", target.bootstrap()[0])
			if err == nil {
				conn.Close()
				t.Error("a TLS handshake succeeded")
			} else if errors.Is(err, context.DeadlineExceeded) {
				t.Error("a TLS handshake gets no answer")
			}
		})
	})
}

// limitedAPIs compares the list of limits with what a broker advertises.
func limitedAPIs(t *testing.T, target target) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(target.bootstrap()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	brokers, err := kadm.NewClient(client).ApiVersions(deadline(t, 30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for _, broker := range brokers {
		if broker.Err != nil {
			t.Fatal(broker.Err)
		}
		for _, limit := range report.Limits {
			for _, key := range limit.APIs {
				if _, served := broker.KeyMaxVersion(key.Int16()); served {
					t.Errorf("%q is a limit, but %s is served", limit.What, key.Name())
				}
			}
		}
		const oldestFetch = 4 // the first with record format 2, and the oldest of Apache Kafka 4
		if oldest, _ := broker.KeyMinVersion(kmsg.Fetch.Int16()); oldest != oldestFetch {
			t.Errorf("Fetch is served from version %d on, want %d", oldest, oldestFetch)
		}
	}
}
