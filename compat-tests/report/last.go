package report

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
)

//go:embed last.json
var last []byte

// ErrOutdated tells that the committed report says something else than a run. `make compat-all` makes it anew.
var ErrOutdated = errors.New("docs/COMPATIBILITY.md is outdated")

// Last returns the report of the last whole run, which docs/COMPATIBILITY.md shows.
func Last() (Report, error) { return decode(last) }

// decode reads what Write wrote.
func decode(content []byte) (Report, error) {
	var report Report
	if err := json.Unmarshal(content, &report); err != nil {
		return Report{}, fmt.Errorf("decode a report: %w", err)
	}
	return report, nil
}

// Covers returns nil if each row of a run, whole or not, is a row of the report, and ErrOutdated with the differences
// otherwise. What failed is left out, since its test has said so. A client that the machine has installed may be there in
// another version.
func (r Report) Covers(run Report) error {
	type place struct{ target, client, feature string }
	known := make(map[place]Row)
	for _, row := range r.Rows {
		known[place{row.Target, row.Client.Name, row.Feature}] = row
	}
	var errs []error
	for _, row := range run.Rows {
		if row.Result == Fails {
			continue
		}
		was, ok := known[place{row.Target, row.Client.Name, row.Feature}]
		if row.Client.Name == installed {
			was.Client.Version = row.Client.Version
		}
		if !ok || was != row {
			errs = append(errs, fmt.Errorf("%w: it says %+v, the run %+v", ErrOutdated, was, row))
		}
	}
	return errors.Join(errs...)
}

// installed is the one client that does not come in the version which the repository asks for, but from the machine's
// packages.
const installed = "kcat"
