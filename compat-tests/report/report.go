// Package report notes which features of which clients work on which targets, as the tests that show it run.
// docs/COMPATIBILITY.md is made of what was noted last, which last.json keeps: Markdown writes the document, and Last
// is how later runs are held to it.
package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// Client is a program that speaks Kafka, as its users name it.
type Client struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Result is how a feature fared.
type Result string

// The results of a feature.
const (
	Works       Result = "works"
	Fails       Result = "fails"
	Unavailable Result = "unavailable" // the client itself has no such feature
)

// Row is one feature of one client on one target.
type Row struct {
	Target  string `json:"target"`
	Client  Client `json:"client"`
	Feature string `json:"feature"`
	Result  Result `json:"result"`
	Note    string `json:"note,omitempty"`
}

// Report is what one run noted.
type Report struct {
	Date string `json:"date"` // of the run, as 2006-01-02
	Rows []Row  `json:"rows"`
}

var (
	mu   sync.Mutex
	rows []Row
)

// Feature runs a test as a subtest that is named after the feature, and notes whether it passed. It is safe for
// concurrent use.
func Feature(t *testing.T, target string, by Client, feature string, test func(t *testing.T)) {
	t.Helper()
	Attempt(t, target, by, feature, func(t *testing.T) string {
		test(t)
		return ""
	})
}

// Attempt is Feature for a test that may find that the client has no such feature: it returns why, or nothing.
func Attempt(t *testing.T, target string, by Client, feature string, test func(t *testing.T) (lacks string)) {
	t.Helper()
	t.Run(feature, func(t *testing.T) {
		row := Row{Target: target, Client: by, Feature: feature, Result: Works}
		t.Cleanup(func() {
			if t.Failed() {
				row.Result, row.Note = Fails, ""
			}
			add(row)
		})
		if why := test(t); why != "" {
			row.Result, row.Note = Unavailable, why
		}
	})
}

// Unsupported notes that the client has no such feature, and why. It is safe for concurrent use.
func Unsupported(target string, by Client, feature, why string) {
	add(Row{Target: target, Client: by, Feature: feature, Result: Unavailable, Note: why})
}

func add(r Row) {
	mu.Lock()
	defer mu.Unlock()
	rows = append(rows, r)
}

// Noted returns all that was noted so far, in an order that does not depend on that of the tests.
func Noted() Report {
	mu.Lock()
	defer mu.Unlock()
	noted := slices.Clone(rows)
	slices.SortStableFunc(noted, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Client.Name, b.Client.Name), cmp.Compare(a.Client.Version, b.Client.Version),
			cmp.Compare(a.Feature, b.Feature), cmp.Compare(a.Target, b.Target))
	})
	return Report{Date: time.Now().UTC().Format(time.DateOnly), Rows: noted}
}

// Write writes a report to a file, as JSON with one line a row, so that what changed is seen line by line.
func Write(path string, report Report) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\"date\": %q, \"rows\": [", report.Date)
	for i, row := range report.Rows {
		line, err := json.Marshal(row)
		if err != nil {
			return fmt.Errorf("encode the report: %w", err)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n%s", line)
	}
	b.WriteString("\n]}\n")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
