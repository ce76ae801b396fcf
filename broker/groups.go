package broker

import (
	"context"
	"errors"
	"net"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/protocol"
)

// whenDone answers with what fill makes of a group request's answer. A
// connection that has ended meanwhile is not answered. from is the member that asks.
func whenDone[T any](b *Broker, from memberRef, p group.Pending[T], fill func(T, error) kmsg.Response) protocol.Reply {
	b.departure.note()
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		answer, err := p.Wait(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, kerr.NotCoordinator) {
			b.members.sentOn(from)
		} else {
			b.members.served(ctx, from)
		}
		return fill(answer, err)
	})
}

// topicIDsInGroups is the version from which on OffsetCommit and OffsetFetch
// name topics by id (KIP-848).
const topicIDsInGroups = 10

// groupTopic is how OffsetCommit and OffsetFetch name a topic.
func groupTopic(version int16, name string, id uuid.UUID) topicRef {
	if version >= topicIDsInGroups {
		return topicRef{byID: true, id: id}
	}
	return topicRef{name: name}
}

// orEmpty is the domain's form of a nullable string.
func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// orNull is the wire's form of a string that may be missing.
func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// clientHost is the address of a client as Kafka shows it.
func clientHost(addr net.Addr) string {
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		host = addr.String()
	}
	return "/" + host
}

// topic returns a topic, nil if there is none. The error says that this could
// not be found out.
func (r *resolver) topic(ref topicRef) (*topology.Topic, error) {
	if t := ref.in(r.snapshot); t != nil {
		return t, nil
	}
	if err := r.refresh(); err != nil {
		return nil, err
	}
	return ref.in(r.snapshot), nil
}
