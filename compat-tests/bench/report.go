package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Report is what a run found.
type Report struct {
	Machine string   `json:"machine"`
	Tables  []*Table `json:"tables"`
}

// Table holds the results of one scenario. Its rows are targets, its columns what was measured.
type Table struct {
	Title   string   `json:"title"`
	Note    string   `json:"note,omitempty"` // how it was measured, where the title can't say
	Columns []Column `json:"columns"`
	Rows    []Row    `json:"rows"`
}

// Column is one quantity.
type Column struct {
	// Unit names the quantity with its unit, in one word, as in Go's benchmark lines: p99-ms.
	Unit string `json:"unit"`
	// Goal is what an agent's value should stay under; 0 means that there is no goal.
	Goal float64 `json:"goal,omitempty"`
}

// Row is one target's results by the columns' units; what is missing does not apply.
type Row struct {
	Target string             `json:"target"`
	Values map[string]float64 `json:"values"`
}

// Add adds a row.
func (t *Table) Add(target string, values map[string]float64) {
	t.Rows = append(t.Rows, Row{target, values})
}

// Compare sets ratio in each row to its quantity divided by that of the target yardstick.
func (t *Table) Compare(quantity, ratio, yardstick string) {
	for _, base := range t.Rows {
		if base.Target != yardstick || base.Values[quantity] == 0 {
			continue
		}
		for _, row := range t.Rows {
			if value, ok := row.Values[quantity]; ok {
				row.Values[ratio] = value / base.Values[quantity]
			}
		}
	}
}

// JSON writes the report as indented JSON.
func (r *Report) JSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// Markdown writes the report as tables. A value that misses its goal is bold.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\nWhat `make bench` measured, end to end through the real listener, each target fresh and in the same run. A goal that was missed is bold.\n\n")
	fmt.Fprintf(&b, "%s\n", r.Machine)
	for _, t := range r.Tables {
		if len(t.Rows) > 0 {
			t.markdown(&b)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *Table) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n\n", t.Title)
	if t.Note != "" {
		fmt.Fprintf(b, "%s\n\n", t.Note)
	}
	b.WriteString("| target |")
	for _, c := range t.Columns {
		fmt.Fprintf(b, " %s |", c.heading())
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(t.Columns)) + "\n")
	for _, row := range t.Rows {
		fmt.Fprintf(b, "| %s |", row.Target)
		for _, c := range t.Columns {
			fmt.Fprintf(b, " %s |", c.cell(row))
		}
		b.WriteString("\n")
	}
}

func (c Column) heading() string {
	if c.Goal == 0 {
		return c.Unit
	}
	return c.Unit + " (goal: < " + number(c.Goal) + ")"
}

func (c Column) cell(row Row) string {
	value, ok := row.Values[c.Unit]
	switch {
	case !ok:
		return ""
	case c.Goal != 0 && value >= c.Goal:
		return "**" + number(value) + "**"
	default:
		return number(value)
	}
}

// number shows three digits, and all those before the point.
func number(v float64) string {
	switch {
	case v >= 100 || v == float64(int64(v)):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
