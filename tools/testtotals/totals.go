package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// event is one line of `go test -json` (see go doc test2json, and "go help
// buildjson" for the build's).
type event struct {
	Action     string
	Package    string
	Test       string
	Elapsed    float64 // seconds
	Output     string
	ImportPath string // of a build that failed
}

// name identifies a test, or a package where Test is empty.
type name struct{ Package, Test string }

// totals counts tests, subtests included. A package that fails without a failing
// test of its own (it does not build, panics, times out) counts as one failure.
type totals struct {
	out                     io.Writer
	passed, failed, skipped int
	output                  map[name]*strings.Builder // of tests that still run
	failures                map[string]int            // by package
	tests                   map[string]int            // by package, of all outcomes
	slow                    []timing
	started                 time.Time
}

type timing struct {
	name
	seconds float64
}

func newTotals(out io.Writer) *totals {
	return &totals{
		out:      out,
		output:   map[name]*strings.Builder{},
		failures: map[string]int{},
		tests:    map[string]int{},
		started:  time.Now(),
	}
}

// read takes the events of one `go test -json`.
func (t *totals) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil {
				t.add(e)
			} else {
				fmt.Fprintf(t.out, "%s", line) // not every tool's output is JSON
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *totals) add(e event) {
	key := name{e.Package, e.Test}
	switch e.Action {
	case "output":
		t.buffer(key).WriteString(e.Output)
	case "build-output":
		fmt.Fprint(t.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			t.endPackage(e)
		} else {
			t.endTest(key, e)
		}
		delete(t.output, key)
	}
}

func (t *totals) buffer(key name) *strings.Builder {
	b := t.output[key]
	if b == nil {
		b = &strings.Builder{}
		t.output[key] = b
	}
	return b
}

func (t *totals) endTest(key name, e event) {
	t.tests[e.Package]++
	switch e.Action {
	case "pass":
		t.passed++
	case "skip":
		t.skipped++
		fmt.Fprintf(t.out, "skip  %s %s\n", e.Package, e.Test)
	case "fail":
		t.failed++
		t.failures[e.Package]++
		fmt.Fprintf(t.out, "FAIL  %s %s\n%s", e.Package, e.Test, t.buffer(key))
	}
	if !strings.Contains(e.Test, "/") {
		t.slow = append(t.slow, timing{key, e.Elapsed})
	}
}

func (t *totals) endPackage(e event) {
	switch {
	case e.Action == "fail":
		if t.failures[e.Package] == 0 {
			t.failed++
			t.printRunning(e.Package)
		}
		fmt.Fprintf(t.out, "FAIL  %s\t%.1fs\n", e.Package, e.Elapsed)
	case e.Action == "pass":
		fmt.Fprintf(t.out, "ok    %s\t%.1fs\t%d tests\n", e.Package, e.Elapsed, t.tests[e.Package])
	}
}

// printRunning prints the output of a package that failed without saying which
// test did: its own, and that of the tests that were still running.
func (t *totals) printRunning(pkg string) {
	for key, output := range t.output {
		if key.Package == pkg {
			fmt.Fprintf(t.out, "FAIL  %s %s\n%s", key.Package, key.Test, output)
			delete(t.output, key)
		}
	}
}

// fail counts a failure outside of any test.
func (t *totals) fail(what string) {
	t.failed++
	fmt.Fprintln(t.out, "FAIL ", what)
}

// summary prints the slowest tests and the totals, and reports whether all is
// well. A run without a single test is not.
func (t *totals) summary() bool {
	const shown = 10
	slices.SortFunc(t.slow, func(a, b timing) int { return cmp.Compare(b.seconds, a.seconds) })
	fmt.Fprintf(t.out, "\nslowest tests, of %s in all:\n", time.Since(t.started).Round(time.Second))
	for _, slow := range t.slow[:min(shown, len(t.slow))] {
		fmt.Fprintf(t.out, "%8.1fs  %s %s\n", slow.seconds, slow.Package, slow.Test)
	}
	fmt.Fprintf(t.out, "\n%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
	return t.failed == 0 && t.passed > 0
}
