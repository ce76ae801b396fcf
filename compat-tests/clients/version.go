package clients

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// moduleVersion is the version of a Go module that this one requires, as its tags spell it but for the v, or "unknown".
// The build information would tell, but a test's program has none.
func moduleVersion(path string) string {
	content, err := os.ReadFile(filepath.Join(toolchain.Root(), "go.mod"))
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == path {
			return strings.TrimPrefix(fields[1], "v")
		}
	}
	return "unknown"
}
