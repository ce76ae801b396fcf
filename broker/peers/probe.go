package peers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/metadata"
)

// ClientID is what a watcher calls itself. The zone that it is in follows, as clients
// tell theirs, so that what it asks is counted where it comes from.
const ClientID = "streamhouse-peer"

func clientID(zone string) string {
	if zone == "" {
		return ClientID
	}
	return ClientID + ",zone=" + zone
}

// maxReply bounds the reply to a probe, in bytes. It is some hundred.
const maxReply = 64 << 10

// probe asks the agent for its versions at a steady pace, on one connection,
// until that fails. It calls answered after every reply.
//
// The question names the cluster and the node that are meant (KIP-1242): the
// address may be another agent's by now, and an agent that is cut off from the
// store says by the same answer that it is of no use.
func (w *Watcher) probe(ctx context.Context, a metadata.Agent, answered func()) error {
	dialing, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	conn, err := w.cfg.Dial(dialing, net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))))
	cancel()
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()

	req := kmsg.NewPtrApiVersionsRequest()
	req.Version = 5
	req.ClientSoftwareName, req.ClientSoftwareVersion = ClientID, "1"
	req.ClusterID, req.NodeID = kmsg.StringPtr(w.cluster.ID()), a.NodeID
	format := kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID(w.self.Zone)))
	for correlation := int32(0); ; correlation++ {
		if err := conn.SetDeadline(time.Now().Add(w.cfg.Timeout)); err != nil {
			return err
		}
		if _, err := conn.Write(format.AppendRequest(nil, req, correlation)); err != nil {
			return err
		}
		if err := receive(conn, correlation); err != nil {
			return err
		}
		answered()
		if err := w.rest(conn); err != nil {
			return err
		}
	}
}

// rest waits until the next question is due, or the connection has ended: the
// end of a process ends its connections.
func (w *Watcher) rest(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(w.cfg.Interval)); err != nil {
		return err
	}
	var stray [1]byte
	switch _, err := conn.Read(stray[:]); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case err != nil:
		return err
	}
	return errors.New("bytes that nobody asked for")
}

// receive reads a reply, of which only the error counts.
func receive(conn net.Conn, correlation int32) error {
	var head [10]byte // size, correlation id, error code
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	size, of := int32(binary.BigEndian.Uint32(head[:])), int32(binary.BigEndian.Uint32(head[4:]))
	if size < 6 || size > maxReply || of != correlation {
		return fmt.Errorf("malformed reply: %d bytes to request %d, want %d", size, of, correlation)
	}
	if err := kerr.ErrorForCode(int16(binary.BigEndian.Uint16(head[8:]))); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, conn, int64(size)-6)
	return err
}
