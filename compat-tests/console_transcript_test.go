package compattests

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/report"
	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

var updateTranscripts = flag.Bool("update", false, "write what the target answered into the transcripts")

// TestConsoleTranscripts runs the commands in testdata/console through Apache Kafka's own tools and compares what these
// print with what they print against Apache Kafka. A transcript is a list of steps:
//
//	# what this is about
//	$ command and arguments, but for the bootstrap servers
//	what the tool prints against Apache Kafka
//	[1]
//	> why StreamHouse differs
//	what the tool prints against StreamHouse
//
// A line in brackets is an exit status other than zero. Without a reason nothing differs. COMPAT_TARGET=apachekafka with
// -update writes Kafka's part, other targets with -update write StreamHouse's; what differs then needs a reason.
func TestConsoleTranscripts(t *testing.T) {
	forEachTarget(t, harness.FastStores, func(t *testing.T, target target) {
		files, err := filepath.Glob("testdata/console/*.txt")
		if err != nil || len(files) == 0 {
			t.Fatalf("no transcripts: %v", err)
		}
		c := startConsole(t, target.bootstrap()[0])
		tools := report.Client{Name: "Kafka's command line tools", Version: java(t).Version()}
		for _, file := range files {
			_, name, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".txt"), "_") // after its number
			name = strings.ReplaceAll(name, "_", " ")
			report.Feature(t, target.name, tools, name, func(t *testing.T) { c.runTranscript(t, file, target.name == "apachekafka") })
		}
	})
}

// A step is a command of a transcript with what it prints.
type step struct {
	comment []string
	command string
	kafka   string
	reason  string
	ours    string // "" unless there is a reason
}

func readTranscript(t *testing.T, file string) []step {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var (
		steps   []step
		comment []string
		into    *string
	)
	for line := range strings.Lines(string(content)) {
		switch {
		case strings.HasPrefix(line, "# "):
			comment, into = append(comment, line), nil
		case strings.HasPrefix(line, "$ "):
			steps = append(steps, step{comment: comment, command: strings.TrimSpace(line[2:])})
			comment, into = nil, &steps[len(steps)-1].kafka
		case strings.HasPrefix(line, "> "):
			steps[len(steps)-1].reason, into = strings.TrimSpace(line[2:]), &steps[len(steps)-1].ours
		case into != nil:
			*into += line
		}
	}
	return steps
}

func writeTranscript(t *testing.T, file string, steps []step) {
	t.Helper()
	var b strings.Builder
	for i, s := range steps {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s$ %s\n%s", strings.Join(s.comment, ""), s.command, trimmed(s.kafka))
		if s.reason != "" {
			fmt.Fprintf(&b, "> %s\n%s", s.reason, trimmed(s.ours))
		}
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What one agent has changed, another may list viewAge later: a command that only reads is given as long.
const viewAge = time.Second

var onlyReads = regexp.MustCompile(`--list|--describe|^admin (list|describe)-|^kafka-cluster|^kafka-get-offsets`)

// runTranscript runs the steps one after the other.
func (c *console) runTranscript(t *testing.T, file string, isKafka bool) {
	steps := readTranscript(t, file)
	for i := range steps {
		s := &steps[i]
		want := s.kafka
		if !isKafka && s.reason != "" {
			want = s.ours
		}
		got := c.run(t, s.command)
		for begin := time.Now(); got != trimmed(want) && onlyReads.MatchString(s.command) && time.Since(begin) < viewAge; {
			got = c.run(t, s.command)
		}
		switch {
		case got == trimmed(want):
		case !*updateTranscripts:
			t.Errorf("$ %s\ngot:\n%s\nwant:\n%s", s.command, got, trimmed(want))
		case isKafka:
			s.kafka = got
		case got == trimmed(s.kafka):
			s.reason, s.ours = "", ""
		default:
			s.ours = got
			if s.reason == "" {
				s.reason = "?"
			}
		}
		if s.reason == "?" {
			t.Errorf("$ %s\ndiffers and needs a reason", s.command)
		}
	}
	if *updateTranscripts {
		writeTranscript(t, file, steps)
	}
}

// console is a JVM with Apache Kafka's tools, which java/Console.java runs.
type console struct {
	bootstrap string
	in        *json.Encoder
	out       *bufio.Reader
}

func startConsole(t *testing.T, bootstrap string) *console {
	t.Helper()
	cmd := java(t).Tool(afterTest(t, 5*time.Minute), filepath.Join(toolchain.Root(), "java", "Console.java"))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stdin.Close(); err != nil {
			t.Error(err)
		}
		if _, err := io.Copy(io.Discard, stdout); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the tools' JVM: %v\n%s", err, stderr.String())
		}
	})
	return &console{bootstrap: bootstrap, in: json.NewEncoder(stdin), out: bufio.NewReader(stdout)}
}

// run runs a command and returns what it prints, without what differs between any two clusters.
func (c *console) run(t *testing.T, command string) string {
	t.Helper()
	if err := c.in.Encode(c.arguments(t, command)); err != nil {
		t.Fatal(err)
	}
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Output string
		Status int
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		t.Fatal(err)
	}
	output := normalize(answer.Output)
	if answer.Status != 0 {
		output += fmt.Sprintf("[%d]\n", answer.Status)
	}
	return output
}

// arguments splits a command at spaces outside of quotes, and adds the bootstrap servers. An argument that is JSON is
// written to a file, whose name takes its place.
func (c *console) arguments(t *testing.T, command string) []string {
	t.Helper()
	var args []string
	for _, word := range regexp.MustCompile(`'[^']*'|\S+`).FindAllString(command, -1) {
		word = strings.Trim(word, "'")
		if strings.HasPrefix(word, "{") {
			file := filepath.Join(t.TempDir(), "argument.json")
			if err := os.WriteFile(file, []byte(word), 0o644); err != nil {
				t.Fatal(err)
			}
			word = file
		}
		args = append(args, word)
	}
	switch args[0] {
	case "admin":
		return slices.Insert(args, 2, c.bootstrap)
	case "kafka-cluster":
		return append(args, "--bootstrap-server", c.bootstrap)
	}
	return slices.Insert(args, 1, "--bootstrap-server", c.bootstrap)
}

// logDirs is how kafka-log-dirs answers.
var logDirs = regexp.MustCompile(`(?m)^\{"brokers":.*$`)

// flatten brings the log directories of all brokers into an order of lines, one a partition. Which broker has it is left
// out.
func flatten(answer string) string {
	var described struct {
		Brokers []struct {
			LogDirs []struct {
				Error      *string
				Partitions []struct {
					Partition       string
					Size, OffsetLag int64
					IsFuture        bool
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(answer), &described); err != nil {
		return err.Error()
	}
	var lines []string
	for _, b := range described.Brokers {
		for _, dir := range b.LogDirs {
			if dir.Error != nil {
				lines = append(lines, *dir.Error)
			}
			for _, p := range dir.Partitions {
				lines = append(lines, fmt.Sprintf("%s size %d lag %d future %t", p.Partition, p.Size, p.OffsetLag, p.IsFuture))
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// clientLog is what the admin client logs, about one partition after the other in any order.
var clientLog = regexp.MustCompile(`(?m)(^\[kafka-admin-client-thread .*\n)+`)

// differing is what differs between any two clusters or any two JVMs, with what takes its place.
var differing = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`(?m)^\s+(at |\.\.\. \d+ more).*\n`), ""},
	{regexp.MustCompile(`(?m)^\[kafka-producer-network-thread .* WARN .*\n`), ""}, // a producer tries again
	{regexp.MustCompile(`(?m)[ \t]+$`), ""},
	{regexp.MustCompile(`(127\.0\.0\.1|localhost)[: ]\d+ *`), "ADDRESS "},
	{regexp.MustCompile(`ADDRESS \(\d+\)`), "ADDRESS (NODE)"},
	{regexp.MustCompile(`/\S*/argument\.json`), "FILE"},
	{regexp.MustCompile(`member-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "MEMBER"},
	{regexp.MustCompile(`\b[\w-]{22}( +)(?:/127)`), "MEMBER$1/127"},
	{regexp.MustCompile(`adminclient-\d+`), "adminclient"},
	{regexp.MustCompile(`(TopicId: |topic id |topic with id |cluster ID: |Cluster ID: )[\w-]{22}`), "${1}ID"},
	{regexp.MustCompile(`\b(Leader|Replicas|Isr): \d+`), "$1: NODE"},
	{regexp.MustCompile(`(?m)(timestamp) 1[78]\d{11}\b`), "$1 NOW"},
	{regexp.MustCompile(`"log_dirs":\["[^"]+"`), `"log_dirs":["DIRECTORY"`},
	{regexp.MustCompile(`(information from brokers|existent brokers:) [\d,]+`), "$1 NODES"},
	{regexp.MustCompile(`(throttles on broker)s? [\d,]+`), "${1}s NODES"},
	{regexp.MustCompile(`"replicas":\[\d+\]`), `"replicas":[NODE]`},
	{regexp.MustCompile(`\(id: \d+ rack`), "(id: NODE rack"},
	{regexp.MustCompile(`(?m)^2 +ADDRESS .* broker\n`), ""}, // the second agent
	{regexp.MustCompile(`(?m)^ConfigResource\(type=BROKER(_LOGGER)?, name='2'\)\n`), ""},
	{regexp.MustCompile(`(TopicId )[\w-]{22}( not found)`), "${1}ID$2"},
	// Since KIP-966 a new Apache Kafka has this one config set cluster-wide, to what is the default too.
	{regexp.MustCompile(`(?m)^  min\.insync\.replicas=1 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:min\.insync\.replicas=1}\n`), ""},
	{regexp.MustCompile(`(min\.insync\.replicas=1 INT) DYNAMIC_DEFAULT_BROKER_CONFIG(\n  min)`), "$1 DEFAULT_CONFIG$2"},
	{regexp.MustCompile(`(?m)^min\.insync\.replicas=1 INT DYNAMIC_DEFAULT_BROKER_CONFIG\n`), ""},
	{regexp.MustCompile(`DYNAMIC_DEFAULT_BROKER_CONFIG:min\.insync\.replicas=1, |(?m:^  min\.insync\.replicas=1 DYNAMIC_DEFAULT_BROKER_CONFIG\n)`), ""},
	{regexp.MustCompile(`(Configs: )min\.insync\.replicas=1,?`), "$1"},
	{regexp.MustCompile(`(?m)[ \t]+$`), ""},
}

func normalize(output string) string {
	output = logDirs.ReplaceAllStringFunc(output, flatten)
	output = clientLog.ReplaceAllStringFunc(output, func(lines string) string {
		return strings.Join(slices.Sorted(strings.Lines(lines)), "")
	})
	for _, d := range differing {
		output = d.pattern.ReplaceAllString(output, d.with)
	}
	// Agents are alike.
	output = strings.Join(slices.Compact(strings.SplitAfter(output, "\n)\n")), "")
	return trimmed(output)
}

// trimmed ends a text with one line break, unless it is empty.
func trimmed(text string) string {
	if text = strings.TrimRight(text, "\n"); text != "" {
		text += "\n"
	}
	return text
}
