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
	"github.com/twmb/franz-go/pkg/kerr"
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
		t.Run("ACLs and quotas", func(t *testing.T) { noACLsAndQuotas(t, target) })
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

// noACLsAndQuotas asks for what there is not.
func noACLsAndQuotas(t *testing.T, target target) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(target.bootstrap()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin, ctx := kadm.NewClient(client), deadline(t, 30*time.Second)
	acls, err := admin.DescribeACLs(ctx, kadm.NewACLs().Topics("topic").Allow().AllowHosts().Operations().ResourcePatternType(kadm.ACLPatternLiteral))
	if err != nil {
		t.Fatal(err)
	}
	for _, acl := range acls {
		if !errors.Is(acl.Err, kerr.SecurityDisabled) {
			t.Errorf("ACLs are described with %v, want %v", acl.Err, kerr.SecurityDisabled)
		}
	}
	quotas, err := admin.AlterClientQuotas(ctx, []kadm.AlterClientQuotaEntry{{
		Entity: kadm.ClientQuotaEntity{{Type: "client-id"}},
		Ops:    []kadm.AlterClientQuotaOp{{Key: "producer_byte_rate", Value: 1e6}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, quota := range quotas {
		if quota.Err == nil {
			t.Error("a quota was set")
		}
	}
	if len(acls) == 0 || len(quotas) == 0 {
		t.Errorf("%d answers on ACLs, %d on quotas", len(acls), len(quotas))
	}
}
