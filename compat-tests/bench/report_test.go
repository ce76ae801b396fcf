package bench

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	moved := &Table{Title: "Moved", Note: "By hand.", Columns: []Column{{Unit: "CPU-s"}, {Unit: "ratio", Goal: 2}, {Unit: "requests"}}}
	moved.Add("yardstick", map[string]float64{"CPU-s": 2})
	moved.Add("slow", map[string]float64{"CPU-s": 5, "requests": 1234.5})
	moved.Add("fast", map[string]float64{"CPU-s": 1.234, "requests": 56.78})
	moved.Compare("CPU-s", "ratio", "yardstick")
	report := &Report{Machine: "a machine", Tables: []*Table{moved, {Title: "Not run", Columns: []Column{{Unit: "s"}}}}}

	var tables strings.Builder
	if err := report.Markdown(&tables); err != nil {
		t.Fatal(err)
	}
	const want = "# Benchmarks\n\nWhat `make bench` measured, end to end through the real listener, each target fresh and in the same run. A goal that was missed is bold.\n" + `
a machine

## Moved

By hand.

| target | CPU-s | ratio (goal: < 2) | requests |
|---|---:|---:|---:|
| yardstick | 2 | 1 |  |
| slow | 5 | **2.50** | 1234 |
| fast | 1.23 | 0.62 | 56.8 |
`
	if tables.String() != want {
		t.Errorf("got\n%s\nwant\n%s", tables.String(), want)
	}

	var object strings.Builder
	if err := report.JSON(&object); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal([]byte(object.String()), &back); err != nil {
		t.Fatal(err)
	}
	if ratio := back.Tables[0].Rows[1].Values["ratio"]; ratio != 2.5 {
		t.Errorf("the ratio came back as %v", ratio)
	}
}

func TestCompareWithoutTheYardstick(t *testing.T) {
	table := &Table{}
	table.Add("alone", map[string]float64{"CPU-s": 5})
	table.Compare("CPU-s", "ratio", "yardstick")
	if ratio, ok := table.Rows[0].Values["ratio"]; ok {
		t.Errorf("ratio %v to nothing", ratio)
	}
}
