package broker

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/broker/group"
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

// errUnknownTopicID says that a request named a topic by an id that nothing has.
var errUnknownTopicID = errors.New("unknown topic id")

// codes is the one table from domain errors to Kafka's codes; the first entry
// that matches counts, and what leaves an outcome open comes first, whatever
// else the error wraps. The classes matter to producers, which retry without
// duplicates only because the code says whether the batch may have been
// persisted:
//
//   - definitely not persisted: NOT_LEADER_OR_FOLLOWER, KAFKA_STORAGE_ERROR,
//     NOT_ENOUGH_REPLICAS
//   - possibly persisted: REQUEST_TIMED_OUT
//
// They matter to consumers too: of a partition that can't be read now, the Java
// client takes KAFKA_STORAGE_ERROR for a reason to try again, and
// REQUEST_TIMED_OUT and CORRUPT_MESSAGE for the end of the application.
var codes = []struct {
	err  error
	code *kerr.Error
	read *kerr.Error // instead of code, where records or offsets are read
}{
	{err: metadata.ErrUnknownOutcome, code: kerr.RequestTimedOut, read: kerr.KafkaStorageError},
	{err: partition.ErrTimeout, code: kerr.RequestTimedOut},

	{err: errUnknownTopicID, code: kerr.UnknownTopicID},
	{err: metadata.ErrUnknownTopic, code: kerr.UnknownTopicOrPartition},
	{err: lease.ErrUnknownKey, code: kerr.UnknownTopicOrPartition},
	{err: metadata.ErrTopicExists, code: kerr.TopicAlreadyExists},
	{err: metadata.ErrInvalidPartitions, code: kerr.InvalidPartitions},
	{err: metadata.ErrOffsetOutOfRange, code: kerr.OffsetOutOfRange},
	{err: config.ErrInvalid, code: kerr.InvalidConfig},

	{err: ingest.ErrOutOfOrderSequence, code: kerr.OutOfOrderSequenceNumber},
	{err: ingest.ErrInvalidProducerEpoch, code: kerr.InvalidProducerEpoch},
	{err: ingest.ErrUpload, code: kerr.KafkaStorageError},
	{err: ingest.ErrCommitUnavailable, code: kerr.NotEnoughReplicas},
	{err: ingest.ErrFull, code: kerr.NotEnoughReplicas},
	{err: ingest.ErrClosed, code: kerr.NotLeaderForPartition},
	{err: partition.ErrClosed, code: kerr.NotLeaderForPartition},
	{err: lease.ErrLeaseHeldByOther, code: kerr.NotLeaderForPartition},
	{err: lease.ErrNotLeader, code: kerr.NotLeaderForPartition},
	{err: lease.ErrNotSequenced, code: kerr.NotLeaderForPartition},
	{err: lease.ErrReleased, code: kerr.NotLeaderForPartition},
	{err: lease.ErrFenced, code: kerr.NotLeaderForPartition},
	{err: lease.ErrTaken, code: kerr.NotLeaderForPartition},
	{err: lease.ErrExpired, code: kerr.NotLeaderForPartition},
	{err: partition.ErrNotAppended, code: kerr.NotLeaderForPartition}, // another agent may have better luck

	{err: fetch.ErrOffsetOutOfRange, code: kerr.OffsetOutOfRange},
	{err: fetch.ErrCorrupt, code: kerr.KafkaStorageError},
	{err: fetch.ErrStorage, code: kerr.KafkaStorageError},
	{err: fetch.ErrSessionNotFound, code: kerr.FetchSessionIDNotFound},
	{err: fetch.ErrSessionEpoch, code: kerr.InvalidFetchSessionEpoch},
	{err: fetch.ErrSessionTopicID, code: kerr.FetchSessionTopicIDError},

	{err: metadata.ErrFenced, code: kerr.NotCoordinator}, // only offsets are fenced so
	{err: metadata.ErrUnavailable, code: kerr.RequestTimedOut, read: kerr.KafkaStorageError},
	{err: context.DeadlineExceeded, code: kerr.RequestTimedOut, read: kerr.KafkaStorageError},
	{err: context.Canceled, code: kerr.RequestTimedOut, read: kerr.KafkaStorageError},
}

// errorCode is the Kafka code of an error; 0 of nil. An error that nobody
// thought of is UNKNOWN_SERVER_ERROR.
func errorCode(err error) int16 { return codeOf(err, false) }

// readErrorCode is errorCode for records and offsets that are read.
func readErrorCode(err error) int16 { return codeOf(err, true) }

func codeOf(err error, read bool) int16 {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*kerr.Error](err); ok {
		return e.Code
	}
	for _, c := range codes {
		switch {
		case !errors.Is(err, c.err):
		case read && c.read != nil:
			return c.read.Code
		default:
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
	} else if r, ok := errors.AsType[*group.Refusal](err); ok {
		message = r.Message
	} else if errors.Is(err, config.ErrInvalid) {
		message = err.Error()
	}
	return &message
}
