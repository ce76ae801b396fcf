package check

import (
	"fmt"
	"time"
)

// Instant is a moment on the one clock of a history, in nanoseconds since the history began. An operation that completed
// at a smaller Instant than that at which another was invoked came before it; otherwise the two are concurrent.
type Instant int64

func (i Instant) String() string { return time.Duration(i).String() }

// NoOffset stands for an offset that is not there or not known, NoAgent for an agent that is not known.
const (
	NoOffset int64 = -1
	NoAgent  int32 = -1
)

// ID names a record: the producer's index in History.Producers, and the record's in Producer.Sends.
type ID struct {
	Producer int32
	Sequence int64
}

func (id ID) String() string {
	return fmt.Sprintf("record %d of producer %d", id.Sequence, id.Producer)
}

// Outcome is what a client knows of an operation that it wanted to have an effect.
type Outcome uint8

const (
	// Unknown: no answer, or one that leaves open whether the operation had its effect, or will have it later.
	Unknown Outcome = iota
	// Acked: the effect was there when the operation completed.
	Acked
	// Failed: the answer rules out that the operation had or will have its effect.
	Failed
)

// History is what clients did with one topic, and what they were told. Nothing was deleted from the topic, and nobody
// wrote to it but the producers of the history, without transactions. The order of the slices means nothing, except
// where a field says so.
type History struct {
	Producers []Producer
	Consumers []Consumer
	// Logs are the final reads: each partition from each agent, when all producers were done.
	Logs []Log
	Ends []End
	// Commits are offsets that members of groups committed, Positions are those that they were told.
	Commits   []Commit
	Positions []Position
}

// Producer is a client that sends.
type Producer struct {
	// Idempotent tells that the broker drops what the producer repeats, and keeps the order in which it sends.
	Idempotent bool
	// Sends are in the order in which the producer sent them.
	Sends []Send
}

// Send is one record that was handed to a producer.
type Send struct {
	Partition int32
	Outcome   Outcome
	Offset    int64 // as acknowledged; means nothing unless Acked
	Invoked   Instant
	Completed Instant // means nothing if the outcome is Unknown
}

// Record is a record as it was read.
type Record struct {
	ID
	Offset int64
}

// Consumer is a client that polls.
type Consumer struct {
	// Sessions of one partition are in the order in which the consumer had them.
	Sessions []Session
}

// Session is the time in which a consumer reads on in one partition. It begins when the partition is assigned or its
// position is set, and lasts until the next does, or the partition is revoked.
type Session struct {
	Partition int32
	From      int64  // the position at the beginning, or NoOffset
	Polls     []Poll // in their order
}

// Poll is what one poll returned of one partition. A poll without records says that an agent was asked, and had none.
type Poll struct {
	Agent     int32 // which answered, or NoAgent
	Invoked   Instant
	Completed Instant
	Records   []Record // in the order in which they were returned
}

// Log is a partition as one agent served it, from offset 0 up to End, which the agent had given as the end.
type Log struct {
	Agent     int32
	Partition int32
	End       int64
	Invoked   Instant
	Completed Instant
	Records   []Record // in the order in which they were served
}

// Source is the answer that an end offset stood in.
type Source uint8

const (
	// Listed: the answer to ListOffsets with the timestamp LATEST, which has to be true at some moment of the request.
	Listed Source = iota
	// Fetched: the high watermark in the answer to a Fetch, which may be late.
	Fetched
)

func (s Source) String() string {
	if s == Listed {
		return "ListOffsets"
	}
	return "Fetch"
}

// End is the end offset of a partition as an agent gave it.
type End struct {
	Source    Source
	Agent     int32
	Partition int32
	Offset    int64
	Invoked   Instant
	Completed Instant
}

// Commit is an offset that a member of a group committed.
type Commit struct {
	Group     string
	Partition int32
	Offset    int64
	Outcome   Outcome
	Invoked   Instant
	Completed Instant // means nothing if the outcome is Unknown
}

// Position is a group's committed offset as a coordinator gave it.
type Position struct {
	Group     string
	Partition int32
	Offset    int64 // NoOffset if the group has committed none
	Agent     int32 // which answered, or NoAgent
	Invoked   Instant
	Completed Instant
}
