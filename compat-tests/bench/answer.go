package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// FirstAnswer asks the broker at address for Metadata until it answers. It gives up at the end of ctx, and when exited
// returns an error.
func FirstAnswer(ctx context.Context, address string, exited func() error) error {
	retry := time.NewTicker(time.Millisecond)
	defer retry.Stop()
	for {
		err := askMetadata(ctx, address)
		if err == nil {
			return nil
		}
		if gone := exited(); gone != nil {
			return gone
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the first answer: %w", err)
		}
	}
}

// askMetadata is one connection with one request: what a client library does besides would be measured too.
func askMetadata(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	request := kmsg.NewPtrMetadataRequest()
	request.SetVersion(8) // not flexible: its answer's header is a correlation id alone
	const headerBytes = 4
	if _, err := conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench")).AppendRequest(nil, request, 1)); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	var size uint32
	if err := binary.Read(in, binary.BigEndian, &size); err != nil {
		return err
	}
	if size < headerBytes || size > mebibyte {
		return fmt.Errorf("an answer of %d bytes", size)
	}
	answer := make([]byte, size)
	if _, err := io.ReadFull(in, answer); err != nil {
		return err
	}
	response := request.ResponseKind().(*kmsg.MetadataResponse)
	if err := response.ReadFrom(answer[headerBytes:]); err != nil {
		return err
	}
	if len(response.Brokers) == 0 {
		return errors.New("an answer without brokers")
	}
	return nil
}
