package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker"
)

// read returns a file of the repository.
func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestReferenceIsGenerated(t *testing.T) {
	var b strings.Builder
	if err := writeReference(&b); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(read(t, "docs/CONFIGURATION.md"), b.String()); diff != "" {
		t.Errorf("docs/CONFIGURATION.md is old; run make docs (-committed +generated):\n%s", diff)
	}
}

// TestExamplesLoad loads the configuration that deploy has for a cluster, and
// the one of the reference.
func TestExamplesLoad(t *testing.T) {
	reference := read(t, "docs/CONFIGURATION.md")
	_, example, _ := strings.Cut(reference, "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	for name, content := range map[string]string{"deploy/streamhouse.yaml": read(t, "deploy/streamhouse.yaml"), "docs": example} {
		file := filepath.Join(t.TempDir(), "streamhouse.yaml")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		addFlags(flags)
		if err := flags.Set("config", file); err != nil {
			t.Fatal(err)
		}
		l, err := load(flags, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !l.MultiAgent {
			t.Errorf("%s is not for a cluster", name)
		}
	}
}

// TestComposeSetsSettings checks that the variables and flags in the other files
// of deploy are those of settings.
func TestComposeSetsSettings(t *testing.T) {
	known := map[string]bool{}
	for _, s := range settingsTable(defaultSettings()) {
		known[envName(s.key)] = true
	}
	for _, name := range []string{
		"deploy/docker-compose.yaml", "deploy/Dockerfile", "deploy/kubernetes.yaml", "README.md",
		"docs/OPERATIONS.md", "docs/OPERATING_MULTI_AGENT.md",
	} {
		for _, variable := range regexp.MustCompile(`\bSTREAMHOUSE_[A-Z_]+`).FindAllString(read(t, name), -1) {
			if !known[variable] {
				t.Errorf("%s: %s is no setting", name, variable)
			}
		}
	}
}

// TestSkippedAPIs finds every API of Kafka either in the table of routes or in
// protocol/SKIPPED.md, and none in both.
func TestSkippedAPIs(t *testing.T) {
	served := map[int16]bool{kmsg.ApiVersions.Int16(): true} // the router's own
	for _, r := range new(broker.Broker).Routes() {
		served[r.Key] = true
	}
	// A row of its tables begins with the key and the name.
	skipped := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| *\d+ *\| *(\w+) *\|`).FindAllStringSubmatch(read(t, "protocol/SKIPPED.md"), -1) {
		skipped[row[0]] = true
		skipped[row[1]] = true
	}
	for key := range int16(kmsg.MaxKey + 1) {
		if kmsg.RequestForKey(key) == nil {
			continue
		}
		name := kmsg.NameForKey(key)
		if served[key] == skipped[name] {
			t.Errorf("%s (%d): served is %t, in SKIPPED.md is %t", name, key, served[key], skipped[name])
		}
	}
}

// TestDocsNameFiles finds what the pages point at: links, and the files of the
// architecture.
func TestDocsNameFiles(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
	file := regexp.MustCompile("`((?:cmd|protocol|broker|lease|segment|metadata|migrations|internal|compat-tests|docs|deploy|tools)/[^`* …{]*)`")
	for _, name := range []string{
		"README.md", "ARCHITECTURE.md", "protocol/SKIPPED.md", "segment/FORMAT.md",
		"docs/OPERATIONS.md", "docs/MULTI_AGENT_ARCHITECTURE.md", "docs/OPERATING_MULTI_AGENT.md", "docs/AGENT_API.md", "docs/COSTS.md", "docs/AGENT_GROUPS.md", "docs/ZONES.md", "deploy/examples/README.md",
	} {
		page := read(t, name)
		var targets []string
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := filepath.Join(filepath.Dir(name), m[1])
			targets = append(targets, target)
			if m[2] != "" && !headings(read(t, target))[m[2]] {
				t.Errorf("%s points at %s%s, which there is not", name, m[1], m[2])
			}
		}
		for _, m := range file.FindAllStringSubmatch(page, -1) {
			targets = append(targets, m[1])
		}
		for _, target := range targets {
			if _, err := os.Stat(filepath.Join("..", "..", target)); err != nil {
				t.Errorf("%s names %s: %v", name, target, err)
			}
		}
	}
}

// TestArchitectureNamesFunctions finds the functions that the tables of steps
// name, each in the file that its row names.
func TestArchitectureNamesFunctions(t *testing.T) {
	rows := regexp.MustCompile("(?m)^\\|[^|]*\\| `([^`]+\\.go)` \\| (`.*`) \\|$").FindAllStringSubmatch(read(t, "ARCHITECTURE.md"), -1)
	if len(rows) < 10 {
		t.Fatalf("%d rows of functions", len(rows))
	}
	for _, row := range rows {
		source := read(t, row[1])
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[2], -1) {
			if !regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + name[1] + `[\[(]`).MatchString(source) {
				t.Errorf("%s has no function %s", row[1], name[1])
			}
		}
	}
}

// headings are the anchors of a page's headings, with their #.
func headings(page string) map[string]bool {
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		text := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		anchors["#"+strings.ReplaceAll(text, " ", "-")] = true
	}
	return anchors
}
