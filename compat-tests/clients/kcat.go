package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// Kcat is kcat, one run of it an operation, or a member. Its producer is idempotent, which it is not by default.
type Kcat struct {
	lacking
	bootstrap []string
}

var _ Client = (*Kcat)(nil)

// NewKcat returns a client for the given bootstrap servers.
func NewKcat(bootstrap []string) *Kcat { return &Kcat{bootstrap: bootstrap} }

func (k *Kcat) Name() string { return "kcat" }

// Version is that of the program and of the library that it is linked with.
func (k *Kcat) Version() string { return kcatVersion() }

var kcatVersion = sync.OnceValue(func() string {
	out, err := exec.Command("kcat", "-V").Output()
	if err != nil {
		return "unknown"
	}
	var numbers []string
	for _, name := range []string{"Version", "librdkafka"} {
		if match := regexp.MustCompile(name + ` ([0-9.]+)`).FindSubmatch(out); match != nil {
			numbers = append(numbers, string(match[1]))
		}
	}
	return strings.Join(numbers, " with librdkafka ")
})

// Profile: kcat has no option for a timestamp, drops empty lines, and wants names for headers.
func (k *Kcat) Profile() scenario.Profile { return scenario.Profile{Codecs: scenario.Codecs} }

func (k *Kcat) Close() error { return nil }

// CreateTopic goes through franz-go: kcat can't create topics.
func (k *Kcat) CreateTopic(ctx context.Context, topic string, configs map[string]string) error {
	return NewFranz(k.bootstrap).CreateTopic(ctx, topic, configs)
}

// List returns what kcat -L prints about a topic.
func (k *Kcat) List(ctx context.Context, topic string) (string, error) {
	out, err := k.run(ctx, nil, "-L", "-t", topic)
	return string(out), err
}

// PartitionCount is from kcat -L too, as JSON.
func (k *Kcat) PartitionCount(ctx context.Context, topic string) (int, error) {
	out, err := k.run(ctx, nil, "-L", "-J", "-t", topic)
	if err != nil {
		return 0, err
	}
	var listed struct {
		Topics []struct {
			Partitions []struct{} `json:"partitions"`
		} `json:"topics"`
	}
	if err := json.Unmarshal(out, &listed); err != nil || len(listed.Topics) != 1 {
		return 0, fmt.Errorf("kcat -L printed %.300q: %w", out, err)
	}
	return len(listed.Topics[0].Partitions), nil
}

// Delimiters of kcat's input and output, which no generated record contains.
const (
	keyDelimiter    = "|<key>|"
	recordDelimiter = "|<end>|"
)

// Produce runs kcat once for each stretch of records that one command line can express: the partition, the headers
// and whether emptiness means null are options that hold for all of a run's input.
func (k *Kcat) Produce(ctx context.Context, topic, codec string, records []scenario.Record) ([]int64, error) {
	for len(records) > 0 {
		options := produceOptions(records[0])
		n := 1
		for n < len(records) && slices.Equal(options, produceOptions(records[n])) {
			n++
		}
		var input bytes.Buffer
		for _, r := range records[:n] {
			// A record without the delimiter has a null key. With -Z, so has one that begins with the delimiter.
			if r.Key != nil || r.Value == nil {
				input.Write(r.Key)
				input.WriteString(keyDelimiter)
			}
			input.Write(r.Value)
			input.WriteString(recordDelimiter)
		}
		args := append([]string{
			"-P", "-t", topic, "-z", codec, "-K", keyDelimiter, "-D", recordDelimiter,
			"-X", "enable.idempotence=true", "-X", "message.max.bytes=" + strconv.Itoa(scenario.MaxMessageBytes),
		}, options...)
		if _, err := k.run(ctx, &input, args...); err != nil {
			return nil, err
		}
		records = records[n:]
	}
	return nil, nil
}

func produceOptions(r scenario.Record) []string {
	options := []string{"-p", strconv.Itoa(int(r.Partition))}
	if r.Value == nil {
		options = append(options, "-Z")
	}
	for _, h := range r.Headers {
		if h.Value == nil {
			options = append(options, "-H", h.Key)
		} else {
			options = append(options, "-H", h.Key+"="+string(h.Value))
		}
	}
	return options
}

// Offsets runs kcat -Q, which prints a line "topic [partition] offset N" a partition.
func (k *Kcat) Offsets(ctx context.Context, topic string, timestamp int64) ([scenario.Partitions]int64, error) {
	var offsets [scenario.Partitions]int64
	args := []string{"-Q"}
	for p := range offsets {
		args = append(args, "-t", fmt.Sprintf("%s:%d:%d", topic, p, timestamp))
	}
	out, err := k.run(ctx, nil, args...)
	if err != nil {
		return offsets, err
	}
	answered := 0
	for line := range strings.Lines(string(out)) {
		var p int
		var offset int64
		if _, err := fmt.Sscanf(line, topic+" [%d] offset %d", &p, &offset); err != nil || p >= len(offsets) {
			return offsets, fmt.Errorf("kcat -Q printed %q: %w", line, err)
		}
		offsets[p] = offset
		answered++
	}
	if answered != len(offsets) {
		return offsets, fmt.Errorf("kcat -Q answered for %d of %d partitions: %q", answered, len(offsets), out)
	}
	return offsets, nil
}

// Read runs kcat -C, which looks timestamps up by itself and stops at the end of each partition.
func (k *Kcat) Read(ctx context.Context, topic string, timestamp int64) ([]scenario.Record, error) {
	from := "beginning"
	if timestamp != scenario.Earliest {
		from = "s@" + strconv.FormatInt(timestamp, 10)
	}
	out, err := k.run(ctx, nil, slices.Concat(consumeOptions, []string{"-C", "-t", topic, "-o", from, "-e"})...)
	if err != nil {
		return nil, err
	}
	return parse(out)
}

// ReadReset reads partition 0 from an offset that it does not have, as a consumer that resets itself to the beginning.
func (k *Kcat) ReadReset(ctx context.Context, topic string, offset int64) ([]scenario.Record, error) {
	out, err := k.run(ctx, nil, slices.Concat(consumeOptions,
		[]string{"-C", "-t", topic, "-p", "0", "-o", strconv.FormatInt(offset, 10), "-X", "topic.auto.offset.reset=earliest", "-e"})...)
	if err != nil {
		return nil, err
	}
	return parse(out)
}

// ReadGroup runs kcat -G, which commits what it has printed when it ends.
func (k *Kcat) ReadGroup(ctx context.Context, topic, group string, n int) ([]scenario.Record, error) {
	out, err := k.run(ctx, nil, slices.Concat(consumeOptions,
		[]string{"-X", "auto.offset.reset=earliest", "-c", strconv.Itoa(n), "-G", group, topic})...)
	if err != nil {
		return nil, err
	}
	return parse(out)
}

// consumeOptions make kcat print a line of numbers, then the key, the value and the headers.
var consumeOptions = []string{
	"-f", "%p %o %T %K %S\n%k%s%h" + recordDelimiter,
	"-X", "fetch.message.max.bytes=" + strconv.Itoa(maxBufferedBytes),
}

// parse reads what kcat printed under consumeOptions.
func parse(out []byte) ([]scenario.Record, error) {
	var records []scenario.Record
	for len(out) > 0 {
		line, rest, ok := bytes.Cut(out, []byte("\n"))
		var r scenario.Record
		var keyLen, valueLen int
		if _, err := fmt.Sscan(string(line), &r.Partition, &r.Offset, &r.Timestamp, &keyLen, &valueLen); err != nil || !ok {
			return nil, fmt.Errorf("kcat printed %.100q after %d records: %w", out, len(records), err)
		}
		if len(rest) < max(keyLen, 0)+max(valueLen, 0) {
			return nil, fmt.Errorf("kcat's output ends within record %d", len(records))
		}
		r.Key, rest = cutNullable(rest, keyLen)
		r.Value, rest = cutNullable(rest, valueLen)
		headers, rest, ok := bytes.Cut(rest, []byte(recordDelimiter))
		if !ok {
			return nil, fmt.Errorf("kcat's output ends within the headers of record %d", len(records))
		}
		r.Headers = parseHeaders(string(headers))
		records = append(records, r)
		out = rest
	}
	return records, nil
}

// cutNullable splits off n bytes; -1 stands for null.
func cutNullable(b []byte, n int) (field, rest []byte) {
	if n < 0 {
		return nil, b
	}
	return b[:n:n], b[n:]
}

// parseHeaders reads "name=value,name=value", where the value NULL stands for null.
func parseHeaders(s string) []scenario.Header {
	if s == "" {
		return nil
	}
	var headers []scenario.Header
	for field := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(field, "=")
		h := scenario.Header{Key: name, Value: []byte(value)}
		if value == "NULL" {
			h.Value = nil
		}
		headers = append(headers, h)
	}
	return headers
}

// command is a run of kcat. -F keeps it from reading its user's configuration.
func (k *Kcat) command(ctx context.Context, args ...string) *exec.Cmd {
	options := []string{"-F", "/dev/null", "-b", strings.Join(k.bootstrap, ",")}
	if id, ok := os.LookupEnv(IDVariable); ok {
		options = append(options, "-X", "client.id="+id)
	}
	return exec.CommandContext(ctx, "kcat", append(options, args...)...)
}

// run runs kcat quietly and returns its standard output.
func (k *Kcat) run(ctx context.Context, input *bytes.Buffer, args ...string) ([]byte, error) {
	cmd := k.command(ctx, append([]string{"-q"}, args...)...)
	if input != nil {
		cmd.Stdin = input
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%.300s: %w\n%s", cmd, err, stderr.String())
	}
	return out, nil
}
