package batch

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Error is why a produced batch is refused, in the terms of a Produce response.
// Everything that [Validate] returns is an *Error; errors.Is finds the kerr error
// of its code too.
type Error struct {
	// Code is the Kafka error code for the partition.
	Code int16
	// Reason is the error message for the partition. It names neither topic nor
	// partition.
	Reason string
	// RecordErrors name the records that are at fault (KIP-467), in order and at
	// most maxRecordErrors of them; empty if the batch as a whole is.
	RecordErrors []RecordError
}

// RecordError is why one record of a batch is refused.
type RecordError struct {
	// BatchIndex is the record's index in the batch, from 0.
	BatchIndex int32
	// Message says what is wrong with it.
	Message string
}

// maxRecordErrors bounds an answer about a batch in which all records are bad. A
// producer gives the records that are not named the error of the batch.
const maxRecordErrors = 100

func (e *Error) Error() string { return "batch: " + e.Reason }

// Unwrap is the kerr error of the code.
func (e *Error) Unwrap() error { return kerr.ErrorForCode(e.Code) }

func refuse(code *kerr.Error, format string, args ...any) *Error {
	return &Error{Code: code.Code, Reason: fmt.Sprintf(format, args...)}
}

// refuseRecords is the refusal of a batch whose records can't be read.
func refuseRecords(err error) *Error {
	if errors.Is(err, ErrTooLarge) {
		// A producer splits the batch and tries again.
		return refuse(kerr.MessageTooLarge, "the records decompress to more than is allowed")
	}
	return refuse(kerr.InvalidRecord, "the records can not be read: %v", err)
}
