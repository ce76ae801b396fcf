package broker

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
)

// intended says what a client is told of every sentinel of the packages below
// the handlers: when it writes or administers, and when it reads.
var intended = map[string]struct {
	err         error
	write, read *kerr.Error
}{
	"config.ErrInvalid": {config.ErrInvalid, kerr.InvalidConfig, kerr.InvalidConfig},

	"fetch.ErrCorrupt":          {fetch.ErrCorrupt, kerr.KafkaStorageError, kerr.KafkaStorageError},
	"fetch.ErrOffsetOutOfRange": {fetch.ErrOffsetOutOfRange, kerr.OffsetOutOfRange, kerr.OffsetOutOfRange},
	"fetch.ErrSessionEpoch":     {fetch.ErrSessionEpoch, kerr.InvalidFetchSessionEpoch, kerr.InvalidFetchSessionEpoch},
	"fetch.ErrSessionNotFound":  {fetch.ErrSessionNotFound, kerr.FetchSessionIDNotFound, kerr.FetchSessionIDNotFound},
	"fetch.ErrSessionTopicID":   {fetch.ErrSessionTopicID, kerr.FetchSessionTopicIDError, kerr.FetchSessionTopicIDError},
	"fetch.ErrStorage":          {fetch.ErrStorage, kerr.KafkaStorageError, kerr.KafkaStorageError},

	"ingest.ErrClosed":               {ingest.ErrClosed, kerr.NotLeaderForPartition, kerr.NotLeaderForPartition},
	"ingest.ErrCommitUnavailable":    {ingest.ErrCommitUnavailable, kerr.NotEnoughReplicas, kerr.NotEnoughReplicas},
	"ingest.ErrFull":                 {ingest.ErrFull, kerr.NotEnoughReplicas, kerr.NotEnoughReplicas},
	"ingest.ErrInvalidProducerEpoch": {ingest.ErrInvalidProducerEpoch, kerr.InvalidProducerEpoch, kerr.InvalidProducerEpoch},
	"ingest.ErrOutOfOrderSequence":   {ingest.ErrOutOfOrderSequence, kerr.OutOfOrderSequenceNumber, kerr.OutOfOrderSequenceNumber},
	"ingest.ErrUpload":               {ingest.ErrUpload, kerr.KafkaStorageError, kerr.KafkaStorageError},

	"lease.ErrExpired":          {lease.ErrExpired, kerr.NotLeaderForPartition, kerr.NotLeaderForPartition},
	"lease.ErrFenced":           {lease.ErrFenced, kerr.NotLeaderForPartition, kerr.NotLeaderForPartition},
	"lease.ErrLeaseHeldByOther": {&lease.HeldByOtherError{}, kerr.NotLeaderForPartition, kerr.NotLeaderForPartition},
	"lease.ErrNotLeader":        {lease.ErrNotLeader, kerr.NotLeaderForPartition, kerr.NotLeaderForPartition},
	"lease.ErrNotSequenced":     {lease.ErrNotSequenced, kerr.NotLeaderForPartition, kerr.NotLeaderForPartition},
	"lease.ErrReleased":         {lease.ErrReleased, kerr.NotLeaderForPartition, kerr.NotLeaderForPartition},
	"lease.ErrTaken":            {lease.ErrTaken, kerr.NotLeaderForPartition, kerr.NotLeaderForPartition},
	"lease.ErrUnknownKey":       {lease.ErrUnknownKey, kerr.UnknownTopicOrPartition, kerr.UnknownTopicOrPartition},

	"metadata.ErrFenced":            {metadata.ErrFenced, kerr.NotCoordinator, kerr.NotCoordinator},
	"metadata.ErrInvalidPartitions": {metadata.ErrInvalidPartitions, kerr.InvalidPartitions, kerr.InvalidPartitions},
	"metadata.ErrOffsetOutOfRange":  {metadata.ErrOffsetOutOfRange, kerr.OffsetOutOfRange, kerr.OffsetOutOfRange},
	"metadata.ErrTopicExists":       {metadata.ErrTopicExists, kerr.TopicAlreadyExists, kerr.TopicAlreadyExists},
	"metadata.ErrUnavailable":       {metadata.ErrUnavailable, kerr.RequestTimedOut, kerr.KafkaStorageError},
	"metadata.ErrUnknownOutcome":    {metadata.ErrUnknownOutcome, kerr.RequestTimedOut, kerr.KafkaStorageError},
	"metadata.ErrUnknownTopic":      {metadata.ErrUnknownTopic, kerr.UnknownTopicOrPartition, kerr.UnknownTopicOrPartition},

	"partition.ErrClosed":      {partition.ErrClosed, kerr.NotLeaderForPartition, kerr.NotLeaderForPartition},
	"partition.ErrNotAppended": {partition.ErrNotAppended, kerr.NotLeaderForPartition, kerr.NotLeaderForPartition},
	"partition.ErrTimeout":     {partition.ErrTimeout, kerr.RequestTimedOut, kerr.RequestTimedOut},
}

// neverAnswered are the sentinels that no client's request meets, and why.
var neverAnswered = map[string]string{
	"metadata.ErrAgentGroup": "is of settings and configs, whose values were checked, and of the agent's start",
	"metadata.ErrBuried":     "makes the agent register again",
	"metadata.ErrSuperseded": "ends the agent's own heartbeats, and the agent with them",
}

func TestEverySentinelHasItsCode(t *testing.T) {
	known := maps.Clone(neverAnswered)
	for name, c := range intended {
		known[name] = "intended"
		for _, err := range []error{c.err, fmt.Errorf("context: %w", c.err)} {
			if got := errorCode(err); got != c.write.Code {
				t.Errorf("errorCode(%s) = %v, want %v", name, kerr.ErrorForCode(got), c.write)
			}
			if got := readErrorCode(err); got != c.read.Code {
				t.Errorf("readErrorCode(%s) = %v, want %v", name, kerr.ErrorForCode(got), c.read)
			}
		}
	}
	var sentinels []string
	for dir, pkg := range map[string]string{
		"config": "config", "fetch": "fetch", "ingest": "ingest", "partition": "partition",
		"../lease": "lease", "../metadata": "metadata",
	} {
		sentinels = append(sentinels, sentinelsIn(t, dir, pkg)...)
	}
	if got, want := slices.Sorted(slices.Values(sentinels)), slices.Sorted(maps.Keys(known)); !slices.Equal(got, want) {
		t.Errorf("the packages export %v\nthis test knows    %v", got, want)
	}
}

// sentinelsIn lists the exported errors of a package: variables named Err….
func sentinelsIn(t *testing.T, dir, pkg string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			vars, ok := decl.(*ast.GenDecl)
			if !ok || vars.Tok != token.VAR {
				continue
			}
			for _, spec := range vars.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(name.Name, "Err") {
						names = append(names, pkg+"."+name.Name)
					}
				}
			}
		}
	}
	if len(names) == 0 {
		t.Fatalf("no sentinels in %s", dir)
	}
	return names
}

// An error often wraps what it is a consequence of. What the client is told must
// not promise more than is known.
func TestWrappedErrorsAreToldByTheirOutcome(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		want *kerr.Error
	}{
		{"the commit's outcome is unknown and the store unavailable", fmt.Errorf("%w: %w", metadata.ErrUnknownOutcome, metadata.ErrUnavailable), kerr.RequestTimedOut},
		{"the commit's outcome is unknown and the pool closed", fmt.Errorf("%w: %w", metadata.ErrUnknownOutcome, ingest.ErrClosed), kerr.RequestTimedOut},
		{"the upload ran into its deadline", fmt.Errorf("%w: %w", ingest.ErrUpload, context.DeadlineExceeded), kerr.KafkaStorageError},
		{"the store stayed unavailable", fmt.Errorf("%w: %w", ingest.ErrCommitUnavailable, metadata.ErrUnavailable), kerr.NotEnoughReplicas},
		{"no lease, for the store did not answer", fmt.Errorf("%w: %w", partition.ErrNotAppended, context.DeadlineExceeded), kerr.NotLeaderForPartition},
		{"no lease, for another agent has it", fmt.Errorf("%w: %w", partition.ErrNotAppended, &lease.HeldByOtherError{}), kerr.NotLeaderForPartition},
		{"fenced", fmt.Errorf("%w: %w", lease.ErrNotLeader, lease.ErrFenced), kerr.NotLeaderForPartition},
		{"a batch that is refused", fmt.Errorf("partition 1: %w", &batch.Error{Code: kerr.CorruptMessage.Code}), kerr.CorruptMessage},
		{"what nobody thought of", errors.New("surprise"), kerr.UnknownServerError},
	} {
		if got := errorCode(test.err); got != test.want.Code {
			t.Errorf("%s: %v, want %v", test.name, kerr.ErrorForCode(got), test.want)
		}
	}
	if errorCode(nil) != 0 || readErrorCode(nil) != 0 || errorMessage(nil) != nil {
		t.Error("success has a code or a message")
	}
}

func TestErrorMessagesShowNothingOfTheInside(t *testing.T) {
	inside := fmt.Errorf("dial tcp 10.0.0.1:5432 as admin: %w", metadata.ErrUnavailable)
	if got := *errorMessage(inside); got != kerr.RequestTimedOut.Description {
		t.Errorf("message %q", got)
	}
	refusal := &requestError{kerr.InvalidRequest, "Duplicate topic name."}
	if got := *errorMessage(fmt.Errorf("topic: %w", refusal)); got != refusal.message {
		t.Errorf("message %q, want %q", got, refusal.message)
	}
	if got, want := *errorMessage(config.CheckTopic("nope", "1")), "Unknown topic config name: nope"; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
}
