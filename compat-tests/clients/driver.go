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

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// Request is what a driver program is asked: one JSON object a line. Op names the method of Client, the other fields
// are its arguments. Bytes are in base64.
type Request struct {
	Op         string            `json:"op"` // createTopic, produce, offsets, read, readGroup
	Topic      string            `json:"topic"`
	Partitions int               `json:"partitions"`
	Configs    map[string]string `json:"configs,omitempty"`
	Codec      string            `json:"codec,omitempty"`
	Records    []scenario.Record `json:"records,omitempty"`
	Timestamp  int64             `json:"timestamp"`
	Group      string            `json:"group,omitempty"`
	Count      int               `json:"count,omitempty"`
}

// Response is a driver's answer, one a request, in one line. A failure fills Error and nothing else.
type Response struct {
	Error   string            `json:"error"`
	Offsets []int64           `json:"offsets"` // of the records produced, or of the partitions asked for
	Records []scenario.Record `json:"records"`
}

// driver is a Client in another language: a child process that ends when its standard input does.
type driver struct {
	name    string
	cmd     *exec.Cmd
	log     *os.File // its standard error
	stdin   io.WriteCloser
	answers *bufio.Reader
}

var _ Client = (*driver)(nil)

// NewJava starts Apache Kafka's Java client. What it writes to its standard error goes to a file in dir. Its life ends
// with ctx or with Close.
func NewJava(ctx context.Context, java toolchain.Java, bootstrap, dir string) (Client, error) {
	source := filepath.Join(toolchain.Root(), "java", "Driver.java")
	return startDriver("java", java.Tool(ctx, source, bootstrap), dir)
}

// NewLibrdkafka starts librdkafka under confluent-kafka for Python; see NewJava for the rest.
func NewLibrdkafka(ctx context.Context, python toolchain.Python, bootstrap, dir string) (Client, error) {
	source := filepath.Join(toolchain.Root(), "python", "driver.py")
	return startDriver("librdkafka", python.Script(ctx, source, bootstrap), dir)
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
	return &driver{name: name, cmd: cmd, log: log, stdin: stdin, answers: bufio.NewReader(stdout)}, nil
}

func (d *driver) Name() string { return d.name }

func (d *driver) Profile() scenario.Profile {
	return scenario.Profile{Timestamps: true, Oddities: true}
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
