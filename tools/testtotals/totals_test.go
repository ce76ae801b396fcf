package main

import (
	"strings"
	"testing"
)

func TestTotals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		events string
		last   string // line of the summary
		ok     bool
		shows  string // what the output must have; empty: nothing but package lines
	}{{
		name: "subtests count, and what passes is silent",
		events: `{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}
			{"Action":"pass","Package":"p","Test":"TestA/one","Elapsed":1}
			{"Action":"pass","Package":"p","Test":"TestA","Elapsed":1}
			{"Action":"pass","Package":"p","Elapsed":1.5}`,
		last: "2 passed, 0 failed, 0 skipped", ok: true, shows: "ok    p\t1.5s\t2 tests",
	}, {
		name: "a failure shows its output",
		events: `{"Action":"output","Package":"p","Test":"TestA","Output":"got 1, want 2\n"}
			{"Action":"fail","Package":"p","Test":"TestA"}
			{"Action":"skip","Package":"p","Test":"TestB"}
			{"Action":"fail","Package":"p"}`,
		last: "0 passed, 1 failed, 1 skipped", shows: "got 1, want 2",
	}, {
		name: "a build that fails is one failure",
		events: `{"ImportPath":"p","Action":"build-output","Output":"x.go:1: undefined: y\n"}
			{"ImportPath":"p","Action":"build-fail"}
			{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
			{"Action":"fail","Package":"p","FailedBuild":"p"}`,
		last: "0 passed, 1 failed, 0 skipped", shows: "undefined: y",
	}, {
		name: "a panic shows the output of the test that ran",
		events: `{"Action":"output","Package":"p","Test":"TestA","Output":"panic: boom\n"}
			{"Action":"fail","Package":"p"}`,
		last: "0 passed, 1 failed, 0 skipped", shows: "panic: boom",
	}, {
		name:   "no test at all is no success",
		events: `{"Action":"skip","Package":"p"}`,
		last:   "0 passed, 0 failed, 0 skipped",
	}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			totals := newTotals(&out)
			if err := totals.read(strings.NewReader(test.events)); err != nil {
				t.Fatal(err)
			}
			if ok := totals.summary(); ok != test.ok {
				t.Errorf("ok = %v, want %v", ok, test.ok)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if last := lines[len(lines)-1]; last != test.last {
				t.Errorf("last line %q, want %q", last, test.last)
			}
			if !strings.Contains(out.String(), test.shows) {
				t.Errorf("output has no %q:\n%s", test.shows, out.String())
			}
			if strings.Contains(out.String(), "chatter") {
				t.Errorf("output of a passing test is shown:\n%s", out.String())
			}
		})
	}
}
