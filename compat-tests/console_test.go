package compattests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

// TestConsoleTools runs Apache Kafka's command line tools one after the other, as an administrator would.
func TestConsoleTools(t *testing.T) {
	forEachTarget(t, harness.FastStores, func(t *testing.T, target target) {
		const topic = "console"
		bootstrap := strings.Join(target.bootstrap(), ",")
		topics := func(args ...string) string {
			t.Helper()
			return tool(t, "", "org.apache.kafka.tools.TopicCommand",
				append([]string{"--bootstrap-server", bootstrap, "--topic", topic}, args...)...)
		}

		topics("--create", "--partitions", "1", "--config", "retention.ms=86400000")
		topics("--alter", "--partitions", "2")
		tool(t, "", "kafka.admin.ConfigCommand", "--bootstrap-server", bootstrap,
			"--entity-type", "topics", "--entity-name", topic, "--alter", "--add-config", "max.message.bytes=2000000")
		description := topics("--describe")
		for _, want := range []string{"PartitionCount: 2", "retention.ms=86400000", "max.message.bytes=2000000", "Partition: 1"} {
			if !strings.Contains(strings.ReplaceAll(description, "\t", " "), want) {
				t.Errorf("the description lacks %q:\n%s", want, description)
			}
		}

		var lines []string
		for i := range 100 {
			lines = append(lines, fmt.Sprintf("key-%d\tvalue %d", i, i))
		}
		tool(t, strings.Join(lines, "\n")+"\n", "org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", bootstrap,
			"--topic", topic, "--reader-property", "parse.key=true", "--compression-codec", "lz4")
		consumed := tool(t, "", "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", bootstrap,
			"--topic", topic, "--from-beginning", "--max-messages", "100", "--timeout-ms", "60000",
			"--formatter-property", "print.key=true")
		got := strings.Split(strings.TrimSuffix(consumed, "\n"), "\n")
		slices.Sort(got)
		slices.Sort(lines)
		if !slices.Equal(got, lines) {
			t.Errorf("consumed %d lines, not those produced: %.300q", len(got), got)
		}

		deletion := filepath.Join(t.TempDir(), "delete.json")
		content := fmt.Sprintf(`{"version": 1, "partitions": [{"topic": %q, "partition": 0, "offset": 7}]}`, topic)
		if err := os.WriteFile(deletion, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		tool(t, "", "org.apache.kafka.tools.DeleteRecordsCommand", "--bootstrap-server", bootstrap, "--offset-json-file", deletion)
		earliest := tool(t, "", "org.apache.kafka.tools.GetOffsetShell", "--bootstrap-server", bootstrap, "--topic", topic, "--time", "earliest")
		if want := topic + ":0:7\n" + topic + ":1:0\n"; earliest != want {
			t.Errorf("earliest offsets %q, want %q", earliest, want)
		}
		topics("--delete")
	})
}

// tool runs a class of Apache Kafka's tools and returns its standard output. A status other than zero fails the test.
func tool(t *testing.T, input, class string, args ...string) string {
	t.Helper()
	cmd := java(t).Tool(deadline(t, 2*time.Minute), class, args...)
	cmd.Stdin = strings.NewReader(input)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", class, args, err, out, stderr.String())
	}
	return string(out)
}
