package broker

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// requestError is a refusal that a handler itself decides on, with the message
// that its client is shown.
type requestError struct {
	code    *kerr.Error
	message string
}

func (e *requestError) Error() string { return e.message }
func (e *requestError) Unwrap() error { return e.code }

// Codes whose names in kerr are long.
var (
	invalidTopic      = kerr.InvalidTopicException
	invalidPartitions = kerr.InvalidPartitions
)

// errUnknownTopicID says that a request named a topic by an id that nothing has.
var errUnknownTopicID = errors.New("unknown topic id")

// codes is the one table from domain errors to Kafka's codes; the first entry
// that matches counts. The classes matter to producers (which retry without
// duplicates only because the code says whether the batch may have been
// persisted):
//
//   - definitely not persisted: NOT_LEADER_OR_FOLLOWER, KAFKA_STORAGE_ERROR,
//     NOT_ENOUGH_REPLICAS
//   - possibly persisted: REQUEST_TIMED_OUT
var codes = []struct {
	err  error
	code *kerr.Error
}{
	{errUnknownTopicID, kerr.UnknownTopicID},
	{metadata.ErrUnknownTopic, kerr.UnknownTopicOrPartition},
	{lease.ErrUnknownKey, kerr.UnknownTopicOrPartition},
	{metadata.ErrTopicExists, kerr.TopicAlreadyExists},
	{metadata.ErrInvalidPartitions, kerr.InvalidPartitions},
	{metadata.ErrOffsetOutOfRange, kerr.OffsetOutOfRange},
	{fetch.ErrOffsetOutOfRange, kerr.OffsetOutOfRange},
	{config.ErrInvalid, kerr.InvalidConfig},

	{lease.ErrLeaseHeldByOther, kerr.NotLeaderForPartition},
	{lease.ErrNotLeader, kerr.NotLeaderForPartition},
	{partition.ErrClosed, kerr.NotLeaderForPartition}, // shutting down: look for another
	{ingest.ErrClosed, kerr.NotLeaderForPartition},
	{partition.ErrTimeout, kerr.RequestTimedOut},
	{partition.ErrNotAppended, kerr.NotEnoughReplicas},
	{ingest.ErrOutOfOrderSequence, kerr.OutOfOrderSequenceNumber},
	{ingest.ErrInvalidProducerEpoch, kerr.InvalidProducerEpoch},
	{ingest.ErrUpload, kerr.KafkaStorageError},
	{ingest.ErrCommitUnavailable, kerr.NotEnoughReplicas},
	{ingest.ErrFull, kerr.NotEnoughReplicas},

	{fetch.ErrCorrupt, kerr.CorruptMessage},
	{fetch.ErrStorage, kerr.KafkaStorageError},

	{metadata.ErrUnknownOutcome, kerr.RequestTimedOut},
	{metadata.ErrUnavailable, kerr.RequestTimedOut},
	{context.DeadlineExceeded, kerr.RequestTimedOut},
	{context.Canceled, kerr.RequestTimedOut},
}

// errorCode is the Kafka code of an error; 0 of nil. An error that nobody
// thought of is UNKNOWN_SERVER_ERROR.
func errorCode(err error) int16 {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*kerr.Error](err); ok {
		return e.Code
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code.Code
		}
	}
	return kerr.UnknownServerError.Code
}

// errorMessage is what the client is shown with the code: words of Kafka's
// kind where the error has some, and nothing of the agent's inside otherwise.
func errorMessage(err error) *string {
	if err == nil {
		return nil
	}
	message := kerr.TypedErrorForCode(errorCode(err)).Description
	if e, ok := errors.AsType[*requestError](err); ok {
		message = e.message
	} else if errors.Is(err, config.ErrInvalid) {
		message = err.Error()
	}
	return &message
}
