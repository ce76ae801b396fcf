package clients

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// Request is what a driver program is asked: one JSON object a line. Op names the method of Client, the other fields
// are its arguments. Bytes are in base64.
//
// The operations are version, which is asked first and tells the codecs too, createTopic, partitionCount,
// createPartitions, topicConfigs, alterTopicConfig, deleteTopic, groups, describeGroup, deleteGroup, produce, offsets,
// read and readGroup; join, which names a new member, and poll, assignment, commit, seek, pause, resume and leave of the
// member of that name.
type Request struct {
	Op         string            `json:"op"`
	Topic      string            `json:"topic"`
	Partitions int               `json:"partitions"`
	Configs    map[string]string `json:"configs,omitempty"`
	Codec      string            `json:"codec,omitempty"`
	Records    []scenario.Record `json:"records,omitempty"`
	Timestamp  int64             `json:"timestamp"`
	Group      string            `json:"group,omitempty"`
	Count      int               `json:"count,omitempty"` // of records to read or poll, of all partitions to create
	Member     string            `json:"member,omitempty"`
	Partition  int32             `json:"partition"`
	Offset     int64             `json:"offset"`
	WaitMillis int64             `json:"waitMillis,omitempty"`
}

// Response is a driver's answer, one a request, in one line. A failure fills Error and nothing else; so does an
// operation that the client does not have, with the text "unsupported".
type Response struct {
	Error      string            `json:"error"`
	Version    string            `json:"version"`
	Codecs     []string          `json:"codecs"`
	Offsets    []int64           `json:"offsets"` // of the records produced, or of the partitions asked for
	Records    []scenario.Record `json:"records"`
	Partitions []int32           `json:"partitions"` // of a member
	Count      int               `json:"count"`      // of a topic's partitions, or of a group's members
	Configs    map[string]string `json:"configs"`
	Groups     []string          `json:"groups"`
	State      string            `json:"state"` // of a group
}

// driver is a Client in another language: a child process that ends when its standard input does.
type driver struct {
	name    string
	version string
	codecs  []string
	joined  int // members so far
	cmd     *exec.Cmd
	log     *os.File // its standard error
	stdin   io.WriteCloser
	answers *bufio.Reader
}

var _ Client = (*driver)(nil)

// NewJava starts Apache Kafka's Java client. What it writes to its standard error goes to a file in dir. Its life ends
// with ctx or with Close.
func NewJava(ctx context.Context, bootstrap []string, dir string) (Client, error) {
	java, err := toolchain.NewJava(ctx)
	if err != nil {
		return nil, err
	}
	return startJava(ctx, "java", java, bootstrap, dir)
}

// NewOldJava starts the last Java client of Apache Kafka 2, else like NewJava.
func NewOldJava(ctx context.Context, bootstrap []string, dir string) (Client, error) {
	java, err := toolchain.NewOldJava(ctx)
	if err != nil {
		return nil, err
	}
	return startJava(ctx, "java-2", java, bootstrap, dir)
}

func startJava(ctx context.Context, name string, java toolchain.Java, bootstrap []string, dir string) (Client, error) {
	source := filepath.Join(toolchain.Root(), "java", "Driver.java")
	return startDriver(name, java.Tool(ctx, source, strings.Join(bootstrap, ",")), dir)
}

func startDriver(name string, cmd *exec.Cmd, dir string) (Client, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("make the log of driver %s: %w", name, err)
	}
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("connect driver %s: %w", name, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("connect driver %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start driver %s: %w", name, err)
	}
	d := &driver{name: name, cmd: cmd, log: log, stdin: stdin, answers: bufio.NewReader(stdout)}
	about, err := d.call(Request{Op: "version"})
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.version, d.codecs = about.Version, about.Codecs
	return d, nil
}

func (d *driver) Name() string { return d.name }

func (d *driver) Version() string { return d.version }

func (d *driver) Profile() scenario.Profile {
	return scenario.Profile{Codecs: d.codecs, Timestamps: true, Oddities: true}
}

func (d *driver) CreateTopic(_ context.Context, topic string, configs map[string]string) error {
	_, err := d.call(Request{Op: "createTopic", Topic: topic, Configs: configs})
	return err
}

func (d *driver) Produce(_ context.Context, topic, codec string, records []scenario.Record) ([]int64, error) {
	response, err := d.call(Request{Op: "produce", Topic: topic, Codec: codec, Records: records})
	return response.Offsets, err
}

func (d *driver) Offsets(_ context.Context, topic string, timestamp int64) ([scenario.Partitions]int64, error) {
	var offsets [scenario.Partitions]int64
	response, err := d.call(Request{Op: "offsets", Topic: topic, Timestamp: timestamp})
	if err != nil {
		return offsets, err
	}
	if len(response.Offsets) != len(offsets) {
		return offsets, fmt.Errorf("driver %s answered for %d of %d partitions", d.name, len(response.Offsets), len(offsets))
	}
	copy(offsets[:], response.Offsets)
	return offsets, nil
}

func (d *driver) Read(_ context.Context, topic string, timestamp int64) ([]scenario.Record, error) {
	response, err := d.call(Request{Op: "read", Topic: topic, Timestamp: timestamp})
	return response.Records, err
}

func (d *driver) ReadGroup(_ context.Context, topic, group string, n int) ([]scenario.Record, error) {
	response, err := d.call(Request{Op: "readGroup", Topic: topic, Group: group, Count: n})
	return response.Records, err
}

func (d *driver) PartitionCount(_ context.Context, topic string) (int, error) {
	response, err := d.call(Request{Op: "partitionCount", Topic: topic})
	return response.Count, err
}

func (d *driver) CreatePartitions(_ context.Context, topic string, total int) error {
	_, err := d.call(Request{Op: "createPartitions", Topic: topic, Count: total})
	return err
}

func (d *driver) TopicConfigs(_ context.Context, topic string) (map[string]string, error) {
	response, err := d.call(Request{Op: "topicConfigs", Topic: topic})
	return response.Configs, err
}

func (d *driver) AlterTopicConfig(_ context.Context, topic, name, value string) error {
	_, err := d.call(Request{Op: "alterTopicConfig", Topic: topic, Configs: map[string]string{name: value}})
	return err
}

func (d *driver) DeleteTopic(_ context.Context, topic string) error {
	_, err := d.call(Request{Op: "deleteTopic", Topic: topic})
	return err
}

func (d *driver) Groups(context.Context) ([]string, error) {
	response, err := d.call(Request{Op: "groups"})
	return response.Groups, err
}

func (d *driver) DescribeGroup(_ context.Context, group string) (state string, members int, err error) {
	response, err := d.call(Request{Op: "describeGroup", Group: group})
	return response.State, response.Count, err
}

func (d *driver) DeleteGroup(_ context.Context, group string) error {
	_, err := d.call(Request{Op: "deleteGroup", Group: group})
	return err
}

func (d *driver) Join(_ context.Context, topic, group string) (Member, error) {
	d.joined++
	m := &driverMember{driver: d, name: fmt.Sprintf("member-%d", d.joined)}
	if _, err := d.call(Request{Op: "join", Topic: topic, Group: group, Member: m.name}); err != nil {
		return nil, err
	}
	return m, nil
}

// driverMember is a consumer in a driver program.
type driverMember struct {
	*driver
	name string
}

func (m *driverMember) Poll(_ context.Context, limit int, wait time.Duration) ([]scenario.Record, error) {
	response, err := m.call(Request{Op: "poll", Member: m.name, Count: limit, WaitMillis: wait.Milliseconds()})
	return response.Records, err
}

func (m *driverMember) Assignment(context.Context) ([]int32, error) {
	response, err := m.call(Request{Op: "assignment", Member: m.name})
	slices.Sort(response.Partitions)
	return response.Partitions, err
}

func (m *driverMember) Commit(context.Context) error {
	_, err := m.call(Request{Op: "commit", Member: m.name})
	return err
}

func (m *driverMember) Seek(_ context.Context, partition int32, offset int64) error {
	_, err := m.call(Request{Op: "seek", Member: m.name, Partition: partition, Offset: offset})
	return err
}

func (m *driverMember) Pause(_ context.Context, partition int32) error {
	_, err := m.call(Request{Op: "pause", Member: m.name, Partition: partition})
	return err
}

func (m *driverMember) Resume(_ context.Context, partition int32) error {
	_, err := m.call(Request{Op: "resume", Member: m.name, Partition: partition})
	return err
}

func (m *driverMember) Leave(context.Context) error {
	_, err := m.call(Request{Op: "leave", Member: m.name})
	return err
}

// call asks and waits for the answer, or for the end of the program, which the end of its context brings about.
func (d *driver) call(request Request) (Response, error) {
	request.Partitions = scenario.Partitions
	line, err := json.Marshal(request)
	if err != nil {
		return Response{}, fmt.Errorf("encode a request: %w", err)
	}
	if _, err := d.stdin.Write(append(line, '\n')); err != nil {
		return Response{}, d.broken(request.Op, err)
	}
	answer, err := d.answers.ReadBytes('\n')
	if err != nil {
		return Response{}, d.broken(request.Op, err)
	}
	var response Response
	if err := json.Unmarshal(answer, &response); err != nil {
		return Response{}, d.broken(request.Op, fmt.Errorf("answered %.200q: %w", answer, err))
	}
	if response.Error == "unsupported" {
		return Response{}, ErrUnsupported
	}
	if response.Error != "" {
		return Response{}, d.broken(request.Op, errors.New(response.Error))
	}
	return response, nil
}

// broken adds to err what the program has logged.
func (d *driver) broken(op string, err error) error {
	log, readErr := os.ReadFile(d.log.Name())
	return errors.Join(fmt.Errorf("driver %s: %s: %w", d.name, op, err), readErr, fmt.Errorf("its log: %s", log))
}

func (d *driver) Close() error {
	if err := errors.Join(d.stdin.Close(), d.cmd.Wait(), d.log.Close()); err != nil {
		return fmt.Errorf("end driver %s: %w", d.name, err)
	}
	return nil
}
