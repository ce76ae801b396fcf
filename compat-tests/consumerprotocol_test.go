package compattests

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/report"
	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// TestConsumerProtocol shows what Java applications have of the consumer protocol (KIP-848), and that a group changes
// to it and back while its members are restarted.
func TestConsumerProtocol(t *testing.T) {
	forEachTarget(t, harness.FastStores, func(t *testing.T, target target) {
		t.Parallel()
		out := tool(t, "", filepath.Join(toolchain.Root(), "java", "ConsumerProtocol.java"), strings.Join(target.bootstrap(), ","))
		by := report.Client{Name: "java", Version: java(t).Version()}
		for line := range strings.Lines(out) {
			feature, failure, failed := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			report.Feature(t, target.name, by, feature, func(t *testing.T) {
				if failed {
					t.Error(failure)
				}
			})
		}
	})
}
