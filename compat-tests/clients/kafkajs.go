package clients

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// NewKafkaJS starts KafkaJS; see NewJava for the rest.
func NewKafkaJS(ctx context.Context, bootstrap []string, dir string) (Client, error) {
	node, err := toolchain.NewNode(ctx)
	if err != nil {
		return nil, err
	}
	source := filepath.Join(toolchain.Root(), "node", "driver.js")
	client, err := startDriver("kafkajs", node.Script(ctx, source, strings.Join(bootstrap, ",")), dir)
	if err != nil {
		return nil, err
	}
	profile := client.Profile()
	profile.NoNullHeaders = true
	return &reshaped{client, profile}, nil
}
