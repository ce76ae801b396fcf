package report

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestDocumentIsThatOfTheLastReport compares docs/COMPATIBILITY.md with what it is generated from.
func TestDocumentIsThatOfTheLastReport(t *testing.T) {
	last, err := Last()
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../../docs/COMPATIBILITY.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(document) != last.Markdown() {
		t.Error("docs/COMPATIBILITY.md is not what report/last.json, report/limits.go and report/quirks.go make of it: run make docs")
	}
}

var (
	franz = Client{Name: "franz-go", Version: "1.0.0"}
	old   = Report{Date: "2026-01-02", Rows: []Row{
		{Target: "embedded", Client: franz, Feature: "seek", Result: Works},
		{Target: "cluster", Client: franz, Feature: "seek", Result: Fails},
		{Target: "embedded", Client: franz, Feature: "zstd", Result: Unavailable, Note: "it has none"},
		{Target: "embedded", Client: Client{Name: installed, Version: "1.7.1"}, Feature: "seek", Result: Works},
	}}
)

func TestCovers(t *testing.T) {
	row := func(change func(*Row)) []Row {
		r := old.Rows[0]
		change(&r)
		return []Row{r}
	}
	for name, test := range map[string]struct {
		run     []Row
		outdate bool
	}{
		"the same":              {old.Rows, false},
		"part of it":            {old.Rows[1:2], false},
		"another version":       {row(func(r *Row) { r.Client.Version = "1.0.1" }), true},
		"another result":        {row(func(r *Row) { r.Result = Unavailable }), true},
		"no failure any more":   {row(func(r *Row) { r.Target = "cluster" }), true},
		"a failure":             {row(func(r *Row) { r.Result = Fails }), false},
		"another note":          {row(func(r *Row) { r.Note = "but" }), true},
		"a new feature":         {row(func(r *Row) { r.Feature = "pause" }), true},
		"a new client":          {row(func(r *Row) { r.Client.Name = "sarama" }), true},
		"another kcat than was": {row(func(r *Row) { r.Client = Client{Name: installed, Version: "1.8.0"} }), false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := old.Covers(Report{Rows: test.run}); errors.Is(err, ErrOutdated) != test.outdate {
				t.Errorf("Covers: %v, want outdated: %t", err, test.outdate)
			}
		})
	}
}

func TestMarkdown(t *testing.T) {
	document := old.Markdown()
	for _, want := range []string{
		"last on 2026-01-02",
		"| [franz-go](#franz-go-100) | 1.0.0 | 0 | 1 | 1 |",
		"## franz-go 1.0.0",
		"| seek | works | **fails** |  |",
		"| zstd | — |  | it has none |",
		"| Transactions, and exactly-once",
	} {
		if !strings.Contains(document, want) {
			t.Errorf("the document lacks %q:\n%s", want, document)
		}
	}
}

// TestWriteIsReadBack reads a written report as Last reads the one that is built in.
func TestWriteIsReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	for _, report := range []Report{old, {Date: "2026-01-02", Rows: []Row{}}} {
		if err := Write(path, report); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		read, err := decode(content)
		if err != nil || !reflect.DeepEqual(read, report) {
			t.Errorf("read %+v, %v, want %+v", read, err, report)
		}
	}
}

// TestFeatureNotesItsResult can't have a failing subtest, so it shows the other two results.
func TestFeatureNotesItsResult(t *testing.T) {
	client := Client{Name: "noted by this test"}
	Feature(t, "embedded", client, "a", func(*testing.T) {})
	Attempt(t, "embedded", client, "b", func(*testing.T) string { return "it has none" })
	Unsupported("embedded", client, "c", "nor this")
	noted := Noted().Rows
	want := []Row{
		{Target: "embedded", Client: client, Feature: "a", Result: Works},
		{Target: "embedded", Client: client, Feature: "b", Result: Unavailable, Note: "it has none"},
		{Target: "embedded", Client: client, Feature: "c", Result: Unavailable, Note: "nor this"},
	}
	if len(noted) != len(want) {
		t.Fatalf("noted %v, want %v", noted, want)
	}
	for i := range want {
		if noted[i] != want[i] {
			t.Errorf("noted %+v, want %+v", noted[i], want[i])
		}
	}
}
