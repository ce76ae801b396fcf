package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

// getJSON asks an admin listener for an answer in JSON, whose fields must all be
// of T.
func getJSON[T any](t *testing.T, a *testAgent, path string) T {
	t.Helper()
	status, body := get(testContext(t), t, a.admin.Addr().String(), path)
	var fields []map[string]any
	var v T
	if err := json.Unmarshal([]byte(body), &v); err != nil || status != http.StatusOK {
		t.Fatalf("%s: status %d, %v: %s", path, status, err, body)
	}
	again, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var want []map[string]any
	for text, to := range map[string]*[]map[string]any{body: &fields, string(again): &want} {
		if err := json.Unmarshal([]byte(text), to); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Errorf("%s has other fields (-want +got):\n%s", path, diff)
	}
	return v
}

// TestInspectJSON asks an agent who is there and who leads what.
func TestInspectJSON(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s, named("one"), func(s *Settings) { s.AvailabilityZone, s.AgentGroup = "zone-a", "blue" })
		client := connect(t, a.addr)
		for _, topic := range []string{"first", "second"} {
			if err := client.ProduceSync(testContext(t), &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}

		self := a.node.Agent.Self()
		agents := getJSON[[]shownAgent](t, a, "/agents")
		want := []shownAgent{{
			AgentID: "one", NodeID: self.NodeID, Session: self.Session.String(), Host: self.Host, Port: self.Port,
			AvailabilityZone: "zone-a", AgentGroup: "blue",
		}}
		if diff := cmp.Diff(want, agents, cmpopts.IgnoreFields(shownAgent{}, "HeartbeatAgeSeconds", "UptimeSeconds")); diff != "" {
			t.Errorf("agents (-want +got):\n%s", diff)
		}

		ages := cmpopts.IgnoreFields(shownLease{}, "Epoch", "AgeSeconds", "ExpiresInSeconds")
		first := shownLease{Topic: "first", AgentGroup: "blue", AgentID: "one"}
		second := shownLease{Topic: "second", AgentGroup: "blue", AgentID: "one"}
		for path, want := range map[string][]shownLease{
			"/leases":                         {first, second},
			"/leases?topic=first":             {first},
			"/leases?topic=second&agent=one":  {second},
			"/leases?topic=second&agent=none": {},
		} {
			got := getJSON[[]shownLease](t, a, path)
			if diff := cmp.Diff(want, got, ages); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
			for _, l := range got {
				if l.Epoch < 1 || l.AgeSeconds < 0 || l.ExpiresInSeconds > a.settings.LeaseDuration.Seconds() {
					t.Errorf("%s: %+v", path, l)
				}
			}
		}
	})
}

// TestInspectAway asks an agent that is cut off from its database.
func TestInspectAway(t *testing.T) {
	s := sharedStores(t)
	database := testdb.NewProxy(t, s.metadata)
	a := startAgent(t, stores{database.URL(), s.objects})
	database.Refuse(true)
	database.CloseAll()
	for _, path := range []string{"/agents", "/leases"} {
		status, body := get(testContext(t), t, a.admin.Addr().String(), path)
		if status != http.StatusServiceUnavailable || len(body) < 2 || body != oneLine(body)+"\n" {
			t.Errorf("%s: status %d, %s", path, status, strconv.Quote(body))
		}
	}
	database.Refuse(false)
}

// TestInspectAfterKill looks at the file of an agent that was killed, which the
// next agent finds as it was.
func TestInspectAfterKill(t *testing.T) {
	settings := defaultSettings()
	settings.DataDir = t.TempDir()
	if err := settings.resolve(); err != nil {
		t.Fatal(err)
	}
	p := start(t, "--data-dir", settings.DataDir, "--agent-id", "one")
	if err := p.kill(); err != nil {
		t.Fatal(err)
	}
	store, done, err := openInspector(testContext(t), settings)
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := store.Sessions(testContext(t))
	if err != nil || len(sessions) != 1 || sessions[0].ID != "one" {
		t.Errorf("sessions %+v, %v", sessions, err)
	}
	if err := done(); err != nil {
		t.Error(err)
	}
	start(t, "--data-dir", settings.DataDir, "--agent-id", "one")
}
