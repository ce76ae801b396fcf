package compattests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/report"
	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// pythonChecks are the programs of folder python that check what one client has of its own, by the names that the
// clients have in TestClients.
var pythonChecks = map[string]string{
	"aiokafka":     "check_aiokafka.py",
	"kafka-python": "check_kafka_python.py",
	"librdkafka":   "check_librdkafka.py",
}

// TestPythonExtras has each client for Python do what its users do beyond the scenario of TestClients: all that its admin
// client can, and what its consumers and producers have of their own.
func TestPythonExtras(t *testing.T) {
	python, err := toolchain.NewPython(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	forEachTarget(t, harness.FastStores, func(t *testing.T, target target) {
		for name, program := range pythonChecks {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				version, outcomes, err := runPythonChecks(t, python, program, target)
				if err != nil {
					t.Error(err)
				}
				for _, outcome := range outcomes {
					by := report.Client{Name: name, Version: version}
					report.Feature(t, target.name, by, outcome.Feature, func(t *testing.T) {
						if outcome.Error != "" {
							t.Error(outcome.Error)
						}
					})
				}
			})
		}
	})
}

// pythonOutcome is how one check of a program fared.
type pythonOutcome struct {
	Feature string `json:"feature"`
	Error   string `json:"error"`
}

// runPythonChecks runs a program and returns what it wrote, up to where it failed.
func runPythonChecks(t *testing.T, python toolchain.Python, program string, target target) (version string, outcomes []pythonOutcome, err error) {
	t.Helper()
	source := filepath.Join(toolchain.Root(), "python", program)
	cmd := python.Script(deadline(t, clientTimeout), source, strings.Join(target.bootstrap(), ","))
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", program, err, &log)
	}
	lines := json.NewDecoder(bytes.NewReader(out))
	var about struct {
		Version string `json:"version"`
	}
	if decodeErr := lines.Decode(&about); decodeErr != nil {
		return "", nil, errors.Join(err, fmt.Errorf("%s: its version: %w", program, decodeErr))
	}
	for {
		var outcome pythonOutcome
		decodeErr := lines.Decode(&outcome)
		if errors.Is(decodeErr, io.EOF) {
			return about.Version, outcomes, err
		}
		if decodeErr != nil {
			return about.Version, outcomes, errors.Join(err, fmt.Errorf("%s: its outcomes: %w", program, decodeErr))
		}
		outcomes = append(outcomes, outcome)
	}
}
