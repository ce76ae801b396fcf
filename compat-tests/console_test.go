package compattests

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

// TestConsoleTools runs Apache Kafka's console producer and consumer, each tool in a JVM of its own, as people do.
// TestConsoleTranscripts has the other tools.
func TestConsoleTools(t *testing.T) {
	forEachTarget(t, harness.FastStores, func(t *testing.T, target target) {
		const topic = "console"
		bootstrap := strings.Join(target.bootstrap(), ",")
		topics := func(args ...string) string {
			t.Helper()
			return tool(t, "", "org.apache.kafka.tools.TopicCommand",
				append([]string{"--bootstrap-server", bootstrap, "--topic", topic}, args...)...)
		}

		topics("--create", "--partitions", "2")
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
