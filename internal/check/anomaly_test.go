package check

import (
	"slices"
	"strings"
	"testing"
)

// small returns a right history of partition 0. Producer 0, which is idempotent, sent the records at the offsets 0 to 3;
// producer 1, which is not, that at 4, of which it does not know, one that failed, and one that it gave up. The
// consumer read all of it, agents 1 and 2 serve it.
func small() History {
	log := []Record{{ID{0, 0}, 0}, {ID{0, 1}, 1}, {ID{0, 2}, 2}, {ID{0, 3}, 3}, {ID{1, 0}, 4}}
	return History{
		Producers: []Producer{
			{Idempotent: true, Sends: []Send{
				{Outcome: Acked, Offset: 0, Invoked: 10, Completed: 15},
				{Outcome: Acked, Offset: 1, Invoked: 20, Completed: 25},
				{Outcome: Acked, Offset: 2, Invoked: 30, Completed: 35},
				{Outcome: Acked, Offset: 3, Invoked: 31, Completed: 45},
			}},
			{Sends: []Send{
				{Invoked: 50},
				{Outcome: Failed, Invoked: 60, Completed: 65},
				{Invoked: 70},
			}},
		},
		Consumers: []Consumer{{Sessions: []Session{{From: 0, Polls: []Poll{
			{Agent: 1, Invoked: 100, Completed: 110, Records: slices.Clone(log[:3])},
			{Agent: 2, Invoked: 120, Completed: 130, Records: slices.Clone(log[3:])},
		}}}}},
		Logs: []Log{
			{Agent: 1, End: 5, Invoked: 1000, Completed: 1010, Records: slices.Clone(log)},
			{Agent: 2, End: 5, Invoked: 1020, Completed: 1030, Records: slices.Clone(log)},
		},
		Ends: []End{
			{Source: Listed, Agent: 1, Offset: 3, Invoked: 36, Completed: 40},
			{Source: Fetched, Agent: 1, Offset: 2, Invoked: 60, Completed: 65},
			{Source: Fetched, Agent: 1, Offset: 4, Invoked: 80, Completed: 85},
		},
		Commits: []Commit{
			{Group: "g", Offset: 2, Outcome: Acked, Invoked: 200, Completed: 210},
			{Group: "g", Offset: 4, Outcome: Acked, Invoked: 220, Completed: 230},
			{Group: "g", Offset: 5, Outcome: Failed, Invoked: 240, Completed: 245},
		},
		Positions: []Position{{Group: "g", Offset: 4, Agent: 1, Invoked: 250, Completed: 260}},
	}
}

const smallStaleness = 30

// producer, session and the like return pointers into a small history.
func sends(h *History) []Send        { return h.Producers[0].Sends }
func others(h *History) []Send       { return h.Producers[1].Sends }
func session(h *History) *Session    { return &h.Consumers[0].Sessions[0] }
func polled(h *History, i int) *Poll { return &session(h).Polls[i] }

// appended has all agents serve one more record at the end.
func appended(h *History, id ID) { appendToLogs(h, 0, id) }

// removed takes an offset out of what was read by anyone.
func removed(h *History, offset int64) {
	gone := func(r Record) bool { return r.Offset == offset }
	for i := range h.Logs {
		h.Logs[i].Records = slices.DeleteFunc(h.Logs[i].Records, gone)
	}
	for i := range session(h).Polls {
		polled(h, i).Records = slices.DeleteFunc(polled(h, i).Records, gone)
	}
}

// TestEachAnomaly has for each anomaly a history that has it, and one that differs as little as possible and has not.
func TestEachAnomaly(t *testing.T) {
	tests := []struct {
		name  string
		wrong func(*History)
		want  []Kind
		right func(*History)
	}{
		{
			"an acknowledged record is nowhere, an unacknowledged one may be",
			func(h *History) {
				removed(h, 4)
				h.Logs[0].End, h.Logs[1].End = 4, 4
				others(h)[0] = Send{Outcome: Acked, Offset: 4, Invoked: 50, Completed: 55}
			},
			[]Kind{Lost},
			func(h *History) {
				removed(h, 4)
				h.Logs[0].End, h.Logs[1].End = 4, 4
			},
		},
		{
			"without final reads, a consumer read across an acknowledged record, or not as far",
			func(h *History) {
				h.Logs = nil
				removed(h, 2)
			},
			[]Kind{Lost},
			func(h *History) {
				h.Logs = nil
				session(h).Polls = session(h).Polls[:1]
				polled(h, 0).Records = polled(h, 0).Records[:2]
			},
		},
		{
			"a consumer read an unacknowledged record that is gone, or nobody did",
			func(h *History) {
				polled(h, 1).Records = append(polled(h, 1).Records, Record{ID{1, 2}, 5})
			},
			[]Kind{Vanished},
			func(h *History) {
				polled(h, 1).Records = append(polled(h, 1).Records, Record{ID{1, 2}, 5})
				appended(h, ID{1, 2})
			},
		},
		{
			"an acknowledgement for a repeated record tells offset 0, or its offset",
			func(h *History) { sends(h)[2].Offset = 0 },
			[]Kind{WrongOffset},
			func(h *History) { sends(h)[2].Completed = 90 },
		},
		{
			"a record of an idempotent producer is there twice, or another one is",
			func(h *History) { appended(h, ID{0, 3}) },
			[]Kind{Duplicate},
			func(h *History) { appended(h, ID{1, 2}) },
		},
		{
			"a record of another producer is there twice, or another one is",
			func(h *History) { appended(h, ID{1, 0}) },
			[]Kind{RepeatedDuplicate},
			func(h *History) { appended(h, ID{1, 2}) },
		},
		{
			"a consumer read another record than is there, or the same again in another session",
			func(h *History) {
				h.Consumers = append(h.Consumers, Consumer{[]Session{{From: 4, Polls: []Poll{{Completed: 200, Records: []Record{{ID{1, 2}, 4}}}}}}})
			},
			[]Kind{InconsistentOffset},
			func(h *History) {
				h.Consumers = append(h.Consumers, Consumer{[]Session{{From: 4, Polls: []Poll{{Completed: 200, Records: []Record{{ID{1, 0}, 4}}}}}}})
			},
		},
		{
			"without final reads, two consumers read different records at an offset, or the same",
			func(h *History) {
				h.Logs = nil
				h.Consumers = append(h.Consumers, Consumer{[]Session{{From: 4, Polls: []Poll{{Completed: 200, Records: []Record{{ID{1, 2}, 4}}}}}}})
			},
			[]Kind{InconsistentOffset},
			func(h *History) {
				h.Logs = nil
				h.Consumers = append(h.Consumers, Consumer{[]Session{{From: 4, Polls: []Poll{{Completed: 200, Records: []Record{{ID{1, 0}, 4}}}}}}})
			},
		},
		{
			"agents have different records at an offset, or the same",
			func(h *History) { h.Logs[1].Records[4].ID = ID{1, 2} },
			[]Kind{Divergence},
			func(h *History) { h.Logs[0], h.Logs[1] = h.Logs[1], h.Logs[0] },
		},
		{
			"agents end at different offsets, or both early",
			func(h *History) { h.Logs[1].Records, h.Logs[1].End = h.Logs[1].Records[:4], 4 },
			[]Kind{Divergence},
			func(h *History) {
				removed(h, 4)
				h.Logs[0].End, h.Logs[1].End = 4, 4
			},
		},
		{
			"an agent lacks a record that another has, or was not asked",
			func(h *History) { h.Logs[1].Records = slices.Delete(h.Logs[1].Records, 3, 4) },
			[]Kind{Divergence},
			func(h *History) { h.Logs = h.Logs[:1] },
		},
		{
			"an offset is empty, or the record behind it is there",
			func(h *History) {
				removed(h, 4)
				for i := range h.Logs {
					h.Logs[i].Records = append(h.Logs[i].Records, Record{ID{1, 2}, 5})
					h.Logs[i].End = 6
				}
			},
			[]Kind{Gap},
			func(h *History) { appended(h, ID{1, 2}) },
		},
		{
			"agents serve a record beyond the end that they give, or none",
			func(h *History) { h.Logs[0].End, h.Logs[1].End = 4, 4 },
			[]Kind{BeyondEnd},
			func(h *History) {
				removed(h, 4)
				h.Logs[0].End, h.Logs[1].End = 4, 4
			},
		},
		{
			"an agent gave an end that is not reached, or just reached",
			func(h *History) { h.Ends[1].Offset = 6 },
			[]Kind{BeyondEnd}, // and the answer of the same agent that follows is not blamed
			func(h *History) { h.Ends[2].Offset = 5 },
		},
		{
			"records of an idempotent producer lie in another order than it sent them, or those of another do",
			func(h *History) {
				sends(h)[2].Completed = 40
				exchange(h, 0, Record{ID{0, 2}, 2}, Record{ID{0, 3}, 3})
			},
			[]Kind{Reordered},
			func(h *History) {
				h.Producers[0].Idempotent = false
				sends(h)[2].Completed = 40
				exchange(h, 0, Record{ID{0, 2}, 2}, Record{ID{0, 3}, 3})
			},
		},
		{
			"a record that was sent after another was acknowledged lies in front of it, or it was sent just before",
			func(h *History) {
				h.Producers[0].Idempotent = false
				exchange(h, 0, Record{ID{0, 0}, 0}, Record{ID{0, 1}, 1})
			},
			[]Kind{NonmonotonicSend},
			func(h *History) {
				h.Producers[0].Idempotent = false
				exchange(h, 0, Record{ID{0, 0}, 0}, Record{ID{0, 1}, 1})
				sends(h)[1].Invoked = 15
			},
		},
		{
			"a failed write is there, or one of unknown fate",
			func(h *History) { appended(h, ID{1, 1}) },
			[]Kind{FailedRead},
			func(h *History) { appended(h, ID{1, 2}) },
		},
		{
			"a consumer read a failed write that is gone, or one of unknown fate that is not",
			func(h *History) { polled(h, 1).Records = append(polled(h, 1).Records, Record{ID{1, 1}, 5}) },
			[]Kind{FailedRead},
			func(h *History) {
				polled(h, 1).Records = append(polled(h, 1).Records, Record{ID{1, 2}, 5})
				appended(h, ID{1, 2})
			},
		},
		{
			"a record is there that nobody sent, or somebody",
			func(h *History) { appended(h, ID{1, 3}) },
			[]Kind{Phantom},
			func(h *History) {
				h.Producers[1].Sends = append(others(h), Send{Invoked: 80})
				appended(h, ID{1, 3})
			},
		},
		{
			"a record of no producer is there, or of one",
			func(h *History) { appended(h, ID{7, 0}) },
			[]Kind{Phantom},
			func(h *History) { appended(h, ID{1, 2}) },
		},
		{
			"a record is there that was sent to another partition, or to this one",
			func(h *History) {
				others(h)[2].Partition = 1
				appended(h, ID{1, 2})
			},
			[]Kind{Phantom},
			func(h *History) { appended(h, ID{1, 2}) },
		},
		{
			"a record was read before it was sent, or while it was",
			func(h *History) { others(h)[0].Invoked = 131 },
			[]Kind{NonmonotonicSend, Phantom}, // whoever reads a record proves what the end is
			func(h *History) { others(h)[0].Invoked = 130 },
		},
		{
			"a consumer got a record again, or began again",
			func(h *History) { polled(h, 1).Records = slices.Insert(polled(h, 1).Records, 0, Record{ID{0, 2}, 2}) },
			[]Kind{NonmonotonicPoll},
			func(h *History) {
				again := Poll{Completed: 130, Records: slices.Insert(polled(h, 1).Records, 0, Record{ID{0, 2}, 2})}
				session(h).Polls = session(h).Polls[:1]
				h.Consumers[0].Sessions = append(h.Consumers[0].Sessions, Session{From: NoOffset, Polls: []Poll{again}})
			},
		},
		{
			"a consumer began before its position, or at it",
			func(h *History) { session(h).From = 1 },
			[]Kind{NonmonotonicPoll},
			func(h *History) { session(h).From = NoOffset },
		},
		{
			"a consumer left records out, or began behind them",
			func(h *History) { polled(h, 1).Records = polled(h, 1).Records[1:] },
			[]Kind{PollSkip},
			func(h *History) {
				later := Poll{Completed: 130, Records: polled(h, 1).Records[1:]}
				session(h).Polls = session(h).Polls[:1]
				h.Consumers[0].Sessions = append(h.Consumers[0].Sessions, Session{From: 4, Polls: []Poll{later}})
			},
		},
		{
			"a consumer began behind its position, or at it",
			func(h *History) { polled(h, 0).Records = polled(h, 0).Records[1:] },
			[]Kind{PollSkip},
			func(h *History) {
				polled(h, 0).Records = polled(h, 0).Records[1:]
				session(h).From = 1
			},
		},
		{
			"an end was listed that an acknowledgement had passed, or was about to",
			func(h *History) { h.Ends[0].Offset = 2 },
			[]Kind{StaleEnd},
			func(h *History) {
				h.Ends[0].Offset = 2
				h.Ends[0].Invoked = 35
			},
		},
		{
			"an end was listed that a consumer had passed, or was about to",
			func(h *History) {
				h.Ends = append(h.Ends, End{Source: Listed, Agent: 2, Offset: 4, Invoked: 131, Completed: 140})
			},
			[]Kind{StaleEnd},
			func(h *History) {
				h.Ends = append(h.Ends, End{Source: Listed, Agent: 2, Offset: 4, Invoked: 130, Completed: 140})
			},
		},
		{
			"an end was listed below one that another agent had given, or not after it",
			func(h *History) {
				h.Ends = append(h.Ends,
					End{Source: Fetched, Agent: 2, Offset: 5, Invoked: 80, Completed: 90},
					End{Source: Listed, Agent: 1, Offset: 4, Invoked: 91, Completed: 95})
			},
			[]Kind{StaleEnd},
			func(h *History) {
				h.Ends = append(h.Ends,
					End{Source: Fetched, Agent: 2, Offset: 5, Invoked: 80, Completed: 90},
					End{Source: Listed, Agent: 1, Offset: 4, Invoked: 90, Completed: 95})
			},
		},
		{
			"a high watermark is older than it may be, or as old as it may be",
			func(h *History) { h.Ends[2].Offset = 3 },
			[]Kind{StaleWatermark},
			func(h *History) {
				h.Ends[2].Offset = 3
				h.Ends[2].Invoked = 45 + smallStaleness
			},
		},
		{
			"a high watermark of an agent goes back, or that of another is behind",
			func(h *History) {
				h.Ends = append(h.Ends, End{Source: Fetched, Agent: 1, Offset: 1, Invoked: 66, Completed: 67})
			},
			[]Kind{EndWentBack, StaleWatermark},
			func(h *History) {
				h.Ends = append(h.Ends, End{Source: Fetched, Agent: 2, Offset: 1, Invoked: 25 + smallStaleness, Completed: 67})
			},
		},
		{
			"an agent had nothing where a record was acknowledged long ago, or not so long",
			func(h *History) {
				h.Consumers = append(h.Consumers, Consumer{[]Session{{From: 3, Polls: []Poll{{Agent: 2, Invoked: 46 + smallStaleness, Completed: 80}}}}})
			},
			[]Kind{StaleRead},
			func(h *History) {
				h.Consumers = append(h.Consumers, Consumer{[]Session{{From: 3, Polls: []Poll{{Agent: 2, Invoked: 45 + smallStaleness, Completed: 80}}}}})
			},
		},
		{
			"a group is told a position that it overwrote, or was about to",
			func(h *History) { h.Positions[0].Offset = 2 },
			[]Kind{CommitWentBack},
			func(h *History) {
				h.Positions[0].Offset = 2
				h.Positions[0].Invoked = 230
			},
		},
		{
			"a group is told that it has no position, or before it has",
			func(h *History) { h.Positions[0].Offset = NoOffset },
			[]Kind{CommitWentBack},
			func(h *History) {
				h.Positions[0] = Position{Group: "g", Offset: NoOffset, Invoked: 200, Completed: 260}
			},
		},
		{
			"a group is told an older position after a newer one, though the newer was never acknowledged; or the other way round",
			func(h *History) {
				h.Commits[1].Outcome = Unknown
				h.Positions = append(h.Positions, Position{Group: "g", Offset: 2, Invoked: 270, Completed: 280})
			},
			[]Kind{CommitWentBack},
			func(h *History) {
				h.Commits[1].Outcome = Unknown
				h.Positions = append(h.Positions, Position{Group: "g", Offset: 2, Invoked: 232, Completed: 235})
			},
		},
		{
			"a group is told a position whose commit failed, or may have been applied",
			func(h *History) { h.Positions[0].Offset = 5 },
			[]Kind{PhantomCommit},
			func(h *History) {
				h.Positions[0].Offset = 5
				h.Commits[2].Outcome = Unknown
			},
		},
		{
			"a group is told a position before it is committed, or while it is",
			func(h *History) { h.Positions[0] = Position{Group: "g", Offset: 4, Invoked: 212, Completed: 220} },
			[]Kind{PhantomCommit},
			func(h *History) { h.Positions[0] = Position{Group: "g", Offset: 4, Invoked: 212, Completed: 221} },
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			demandKinds(t, test.wrong, test.want)
			demandKinds(t, test.right, nil)
		})
	}
}

// demandKinds checks a small history after a change.
func demandKinds(t *testing.T, change func(*History), want []Kind) {
	t.Helper()
	h := small()
	change(&h)
	anomalies := Check(h, Options{Staleness: smallStaleness})
	var got []Kind
	for _, a := range anomalies {
		got = append(got, a.Kind)
	}
	slices.Sort(got)
	if !slices.Equal(slices.Compact(got), want) {
		t.Errorf("found %v, want the kinds %q", anomalies, want)
	}
}

func TestLegalKindsAreNotReported(t *testing.T) {
	h := small()
	appended(&h, ID{1, 0})
	if anomalies := Check(h, Options{Legal: []Kind{RepeatedDuplicate}}); len(anomalies) > 0 {
		t.Error(anomalies)
	}
}

// TestAnomalyPrintsWhatIsNeeded pins the whole text of one: which record, where, from which agents, and when.
func TestAnomalyPrintsWhatIsNeeded(t *testing.T) {
	h := small()
	polled(&h, 1).Records[1].ID = ID{0, 3}
	want := strings.Join([]string{
		"partition 0, offset 4: inconsistent offset: record 3 of producer 0 was read there, and record 0 of producer 1 too",
		"	producer 0: sent record 3 to partition 0 at 31ns, acknowledged at 45ns with offset 3",
		"	final read: record 3 of producer 0 at offset 3 of partition 0 from agent 1 between 1µs and 1.01µs",
		"	final read: record 0 of producer 1 at offset 4 of partition 0 from agent 1 between 1µs and 1.01µs",
		"	final read: record 3 of producer 0 at offset 3 of partition 0 from agent 2 between 1.02µs and 1.03µs",
		"	final read: record 0 of producer 1 at offset 4 of partition 0 from agent 2 between 1.02µs and 1.03µs",
		"	consumer 0: record 3 of producer 0 at offset 3 of partition 0 from agent 2 between 120ns and 130ns",
		"	consumer 0: record 3 of producer 0 at offset 4 of partition 0 from agent 2 between 120ns and 130ns",
	}, "\n")
	anomalies := Check(h, Options{})
	if len(anomalies) != 1 || anomalies[0].String() != want {
		t.Errorf("found %v, want\n%s", anomalies, want)
	}
}

func TestAnomaliesAreBounded(t *testing.T) {
	h := small()
	for i := range int64(2 * maxAnomalies) {
		appended(&h, ID{1, 10 + i})
	}
	if n := len(Check(h, Options{})); n != maxAnomalies {
		t.Errorf("%d anomalies, want %d", n, maxAnomalies)
	}
}
