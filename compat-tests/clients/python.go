package clients

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// NewLibrdkafka starts librdkafka under confluent-kafka for Python; see NewJava for the rest.
func NewLibrdkafka(ctx context.Context, bootstrap []string, dir string) (Client, error) {
	return startPython(ctx, "librdkafka", "drive_librdkafka.py", bootstrap, dir)
}

// NewAiokafka starts aiokafka; see NewJava for the rest.
func NewAiokafka(ctx context.Context, bootstrap []string, dir string) (Client, error) {
	client, err := startPython(ctx, "aiokafka", "drive_aiokafka.py", bootstrap, dir)
	if err != nil {
		return nil, err
	}
	profile := client.Profile()
	profile.NoNullRecords = true
	return &reshaped{client, profile}, nil
}

// NewKafkaPython starts kafka-python; see NewJava for the rest.
func NewKafkaPython(ctx context.Context, bootstrap []string, dir string) (Client, error) {
	client, err := startPython(ctx, "kafka-python", "drive_kafka_python.py", bootstrap, dir)
	if err != nil {
		return nil, err
	}
	profile := client.Profile()
	profile.NoNullRecords, profile.NoNullHeaders = true, true
	return &reshaped{client, profile}, nil
}

func startPython(ctx context.Context, name, source string, bootstrap []string, dir string) (Client, error) {
	python, err := toolchain.NewPython(ctx)
	if err != nil {
		return nil, err
	}
	return startDriver(name, python.Script(ctx, filepath.Join(toolchain.Root(), "python", source), strings.Join(bootstrap, ",")), dir)
}

// reshaped is a client that can express less than drivers usually do.
type reshaped struct {
	Client
	profile scenario.Profile
}

func (r *reshaped) Profile() scenario.Profile { return r.profile }
