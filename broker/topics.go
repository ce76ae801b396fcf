package broker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/metadata"
)

// What the handlers of topics share: the rules of names and counts, and writes
// whose outcome may be unknown.

var legalTopicName = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)

// checkTopicName applies Kafka's rules for the names of topics. The error is a
// *requestError.
func checkTopicName(name string) error {
	reason := ""
	switch {
	case name == "":
		reason = "the empty string is not allowed"
	case name == "." || name == "..":
		reason = fmt.Sprintf("'%s' is not allowed", name)
	case len(name) > 249:
		reason = fmt.Sprintf("the length of '%s' is longer than the max allowed length 249", name)
	case !legalTopicName.MatchString(name):
		reason = fmt.Sprintf("'%s' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'", name)
	default:
		return nil
	}
	return &requestError{kerr.InvalidTopicException, "Topic name is invalid: " + reason}
}

// checkPartitionCount bounds what one request may make.
func checkPartitionCount(n int32) error {
	switch {
	case n <= 0:
		return &requestError{kerr.InvalidPartitions, "Number of partitions was set to an invalid non-positive value."}
	case n > config.MaxPartitions:
		return &requestError{kerr.InvalidPartitions, fmt.Sprintf("Number of partitions must be at most %d.", config.MaxPartitions)}
	}
	return nil
}

// checkReplicas applies Kafka's rules for the replicas of one partition.
func checkReplicas(view *topology.Snapshot, replicas []int32) error {
	if len(replicas) == 0 {
		return &requestError{kerr.InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list."}
	}
	sorted := slices.Sorted(slices.Values(replicas))
	for i, id := range sorted {
		switch {
		case !view.Listed(id):
			return &requestError{kerr.InvalidReplicaAssignment, fmt.Sprintf("The manual partition assignment includes broker %d, but no such broker is registered.", id)}
		case i > 0 && id == sorted[i-1]:
			return &requestError{kerr.InvalidReplicaAssignment, fmt.Sprintf("The manual partition assignment includes the broker %d more than once.", id)}
		}
	}
	return nil
}

// checkAssignment applies them to several partitions, which have as many
// replicas each. Nothing is kept of it: whoever has the lease leads.
func checkAssignment(view *topology.Snapshot, partitions [][]int32) error {
	for _, replicas := range partitions {
		if err := checkReplicas(view, replicas); err != nil {
			return err
		}
		if want := len(partitions[0]); len(replicas) != want {
			return &requestError{kerr.InvalidReplicaAssignment, fmt.Sprintf(
				"The manual partition assignment includes a partition with %d replica(s), but this is not consistent with previous partitions, which have %d replica(s).",
				len(replicas), want,
			)}
		}
	}
	return nil
}

// createTopic creates the topic under its own id, so that asking again after
// an unknown outcome is safe: it is done until it is answered or ctx ends.
func (b *Broker) createTopic(ctx context.Context, t metadata.NewTopic) error {
	return untilKnown(ctx, func() error { return b.Store.CreateTopic(ctx, t) })
}

// untilKnown repeats an idempotent write until its outcome is known.
func untilKnown(ctx context.Context, write func() error) error {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := write()
		if !errors.Is(err, metadata.ErrUnknownOutcome) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// requestTimeout bounds an administrative request by what its client asked for.
func requestTimeout(ctx context.Context, ms int32) (context.Context, context.CancelFunc) {
	const floor, ceiling = time.Second, time.Minute
	return context.WithTimeout(ctx, min(max(time.Duration(ms)*time.Millisecond, floor), ceiling))
}
