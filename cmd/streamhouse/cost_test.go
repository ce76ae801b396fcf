package main

import (
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/broker/traffic"
)

// TestCost asks an agent what its traffic costs, as the command does.
func TestCost(t *testing.T) {
	ctx := testContext(t)
	a := startAgent(t, embeddedStores(t), func(s *Settings) { s.AvailabilityZone = "zone-a" })
	const size = 100_000
	client := connect(t, a.addr)
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: make([]byte, size)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	// A request is counted when its reply is written, which the client may see first.
	var report *traffic.Report
	awaitAdmin(ctx, t, a.admin.Addr().String(), costPath, func(status int, body string) bool {
		if status != http.StatusOK {
			t.Fatalf("status %d: %s", status, body)
		}
		var err error
		if report, err = askCost(ctx, a.admin.Addr().String()); err != nil {
			t.Fatal(err)
		}
		return report.SinceStart.ProducedBytes > 0
	})
	got := report.SinceStart
	if got.ProducedBytes < size || got.ProducedBytes > size+1000 || got.CrossZoneBytes != 0 || got.WithoutZones.CrossZoneBytes != 0 {
		t.Errorf("%+v", got)
	}
	for i, kind := range []string{"client_in", "client_out"} {
		if len(got.Links) != 2 || got.Links[i].Kind != kind || got.Links[i].From != "zone-a" || got.Links[i].To != "zone-a" {
			t.Errorf("%+v", got.Links)
		}
	}
	if got.Requests.Put == 0 || got.Dollars.Sum() != 0 {
		t.Errorf("%d PUTs to a folder cost %+v", got.Requests.Put, got.Dollars)
	}

	var b strings.Builder
	if err := printCost(&b, report); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`(?m)^ZONE zone-a +LAST-MINUTE +SINCE-START$`, `(?m)^produced +98KiB +98KiB$`, `(?m)^PUT +\d+ +\d+$`,
		`(?m)^\$ an hour without zones +0\.000000 +0\.000000$`, `(?m)^client_in +zone-a +zone-a +\d{6}$`,
	} {
		if !regexp.MustCompile(line).MatchString(b.String()) {
			t.Errorf("no line %s in:\n%s", line, b.String())
		}
	}
}

// TestPricesAreOfTheStore checks that requests are paid where they are billed.
func TestPricesAreOfTheStore(t *testing.T) {
	for url, want := range map[string]traffic.Prices{
		"s3://bucket":     traffic.DefaultPrices(),
		"file:///objects": {TransferPerGiB: traffic.DefaultPrices().TransferPerGiB},
	} {
		s := defaultSettings()
		s.ObjectURL = url
		if diff := cmp.Diff(want, s.prices()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", url, diff)
		}
	}
}

// TestCostsTellOfFields finds the fields of /cost in the manual.
func TestCostsTellOfFields(t *testing.T) {
	page := read(t, "docs/COSTS.md")
	var look func(reflect.Type)
	look = func(of reflect.Type) {
		switch of.Kind() {
		case reflect.Slice:
			look(of.Elem())
		case reflect.Struct:
			for field := range of.Fields() {
				if name := field.Tag.Get("json"); !strings.Contains(page, name) || name == "" {
					t.Errorf("the manual does not tell of %s (%s of %s)", name, field.Name, of)
				}
				look(field.Type)
			}
		}
	}
	look(reflect.TypeFor[traffic.Report]())
}
