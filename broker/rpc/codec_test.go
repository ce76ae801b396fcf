package rpc

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

// drawID draws from few ids, so that they come again.
func drawID(t *rapid.T) uuid.UUID {
	return uuid.UUID{15: byte(rapid.IntRange(0, 4).Draw(t, "id"))}
}

func drawKey(t *rapid.T) lease.Key {
	return lease.Key{TopicID: drawID(t), Partition: rapid.OneOf(rapid.Int32Range(0, 3), rapid.Int32()).Draw(t, "partition")}
}

func drawCommit(t *rapid.T) *metadata.Commit {
	c := &metadata.Commit{AgentID: rapid.StringN(0, 20, 100).Draw(t, "agent")}
	c.Objects = make([]metadata.CommitObject, rapid.IntRange(0, 4).Draw(t, "objects"))
	for i := range c.Objects {
		c.Objects[i] = metadata.CommitObject{ID: drawID(t), Size: rapid.Int64().Draw(t, "size")}
		c.Objects[i].Batches = make([]metadata.CommitBatch, rapid.IntRange(0, 8).Draw(t, "batches"))
		for j := range c.Objects[i].Batches {
			b := &c.Objects[i].Batches[j]
			*b = metadata.CommitBatch{
				Key: drawKey(t), LeaderEpoch: rapid.OneOf(rapid.Int32Range(0, 2), rapid.Int32()).Draw(t, "epoch"),
				Position: rapid.Int64().Draw(t, "position"), Length: rapid.Int32().Draw(t, "length"),
				Records: rapid.Int32().Draw(t, "records"), ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1,
				MaxTimestamp: rapid.Int64().Draw(t, "timestamp"), LogAppendTime: rapid.Bool().Draw(t, "append time"),
			}
			if rapid.Bool().Draw(t, "idempotent") {
				b.ProducerID, b.ProducerEpoch = rapid.Int64().Draw(t, "producer"), rapid.Int16().Draw(t, "its epoch")
				b.BaseSequence = rapid.Int32().Draw(t, "sequence")
			}
		}
	}
	return c
}

func TestCommitRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCommit(t)
		b, err := appendCommit(nil, c)
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseCommit(b)
		if diff := cmp.Diff(c, back); err != nil || diff != "" {
			t.Fatalf("%v (-sent +received):\n%s", err, diff)
		}
		results := make([][]metadata.CommitResult, len(c.Objects))
		edge := rapid.OneOf(rapid.Just(int64(-1)), rapid.Just(int64(0)), rapid.Int64())
		for i := range results {
			results[i] = make([]metadata.CommitResult, len(c.Objects[i].Batches))
			for j := range results[i] {
				results[i][j] = metadata.CommitResult{
					Outcome:    metadata.CommitOutcome(rapid.IntRange(0, int(metadata.ObjectClaimed)).Draw(t, "outcome")),
					BaseOffset: edge.Draw(t, "base"), AppendTime: edge.Draw(t, "time"), LogStartOffset: edge.Draw(t, "start"),
				}
			}
		}
		told, err := parseResults(appendResults(nil, results), c)
		if diff := cmp.Diff(results, told); err != nil || diff != "" {
			t.Fatalf("%v (-sent +received):\n%s", err, diff)
		}
	})
}

func TestRecordBytesAreNotSent(t *testing.T) {
	c := &metadata.Commit{Objects: []metadata.CommitObject{{Batches: []metadata.CommitBatch{{Inline: []byte("records")}}}}}
	if _, err := appendCommit(nil, c); err == nil {
		t.Error("a commit with record bytes was encoded")
	}
	f := newFollows()
	f.add(lease.Key{})
	up := growthCoder{follows: f}
	b := up.appendGrowth(nil, &metadata.Growth{
		Watermarks: metadata.Watermarks{High: 7, LastStable: 7},
		Extents:    []metadata.Extent{{EndOffset: 7, AppendTime: -1, Inline: []byte("records")}},
	})
	g := newFollows()
	g.add(lease.Key{})
	down := growthCoder{follows: g}
	got, err := down.parseGrowth(b)
	want := []metadata.Growth{{Watermarks: metadata.Watermarks{High: 7, LastStable: 7}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestCommitOfTooManyBatches(t *testing.T) {
	c := &metadata.Commit{Objects: []metadata.CommitObject{{Batches: make([]metadata.CommitBatch, MaxCommitBatches+1)}}}
	if _, err := appendCommit(nil, c); err == nil {
		t.Error("it was encoded")
	}
}

func drawGrowth(t *rapid.T) metadata.Growth {
	g := metadata.Growth{Key: drawKey(t), Watermarks: metadata.Watermarks{
		LogStart: rapid.Int64().Draw(t, "start"), High: rapid.Int64().Draw(t, "high"),
		LeaderEpoch: rapid.Int32Range(-1, 1).Draw(t, "epoch"), LeaderID: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "leader"),
	}}
	g.Watermarks.LastStable = g.Watermarks.High
	if rapid.Bool().Draw(t, "transactions") {
		g.Watermarks.LastStable = rapid.Int64().Draw(t, "stable")
	}
	for range rapid.IntRange(0, 4).Draw(t, "extents") {
		g.Extents = append(g.Extents, metadata.Extent{
			BaseOffset: rapid.Int64().Draw(t, "base"), EndOffset: rapid.Int64().Draw(t, "end"),
			LeaderEpoch: rapid.Int32Range(0, 1).Draw(t, "extent's epoch"), MaxTimestamp: rapid.Int64().Draw(t, "timestamp"),
			AppendTime: rapid.OneOf(rapid.Just(int64(-1)), rapid.Int64()).Draw(t, "append time"),
			Object:     drawID(t), ObjectSize: rapid.Int64Range(0, 1).Draw(t, "size"),
			Position: rapid.Int64().Draw(t, "position"), Length: rapid.Int64().Draw(t, "length"),
		})
	}
	return g
}

// TestStreamRoundTrip has both ends of a stream change what is followed, with growth
// on its way meanwhile.
func TestStreamRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		client, server := newFollows(), newFollows()
		sender, receiver := growthCoder{follows: server}, growthCoder{follows: client}
		followed := map[lease.Key]bool{}
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			sent := rapid.SliceOfN(rapid.Custom(drawGrowth), 0, 5).Draw(t, "growth")
			var message []byte
			sent = slices.DeleteFunc(sent, func(g metadata.Growth) bool { return !followed[g.Key] })
			for i := range sent {
				message = sender.appendGrowth(message, &sent[i])
			}

			add := rapid.SliceOfN(rapid.Custom(drawKey), 0, 6).Draw(t, "add")
			drop := rapid.SliceOfN(rapid.Custom(drawKey), 0, 6).Draw(t, "drop")
			wants := client.appendWants(nil, add, drop)
			for _, k := range drop {
				if followed[k] {
					sent = slices.DeleteFunc(sent, func(g metadata.Growth) bool { return g.Key == k })
				}
				delete(followed, k)
			}
			for _, k := range add {
				followed[k] = true
			}
			if _, _, err := server.parseWants(wants); err != nil {
				t.Fatal(err)
			}
			if len(server.numbers) != len(followed) {
				t.Fatalf("%d keys are followed, want %d", len(server.numbers), len(followed))
			}
			if diff := cmp.Diff(client.numbers, server.numbers); diff != "" {
				t.Fatalf("numbers (-client +server):\n%s", diff)
			}
			got, err := receiver.parseGrowth(message)
			if err != nil {
				t.Fatal(err)
			}
			// One that was dropped and added again is another to both.
			for _, k := range drop {
				sent = slices.DeleteFunc(sent, func(g metadata.Growth) bool { return g.Key == k })
			}
			if len(sent) == 0 {
				sent = nil
			}
			if diff := cmp.Diff(sent, got); diff != "" {
				t.Fatalf("growth (-sent +received):\n%s", diff)
			}
		}
	})
}

// TestSizes holds what the wire costs: control bytes cross zones.
func TestSizes(t *testing.T) {
	const n = 100
	topic := uuid.New()
	c := &metadata.Commit{AgentID: "agent-1", Objects: []metadata.CommitObject{{ID: segment.NewID(), Size: n * 16 << 10}}}
	var growth []metadata.Growth
	f := newFollows()
	for i := range int32(n) {
		k := lease.Key{TopicID: topic, Partition: i}
		f.add(k)
		c.Objects[0].Batches = append(c.Objects[0].Batches, metadata.CommitBatch{
			Key: k, LeaderEpoch: 3, Position: int64(i) * 16 << 10, Length: 16 << 10, Records: 100,
			ProducerID: 4000 + int64(i%10), BaseSequence: 100_000, MaxTimestamp: 1_795_000_000_000 + int64(i%7),
		})
		growth = append(growth, metadata.Growth{
			Key: k, Watermarks: metadata.Watermarks{LastStable: 100, High: 100, LeaderEpoch: 3, LeaderID: "agent-1"},
			Extents: []metadata.Extent{{
				EndOffset: 100, LeaderEpoch: 3, MaxTimestamp: 1_795_000_000_000 + int64(i%7), AppendTime: -1,
				Object: c.Objects[0].ID, ObjectSize: c.Objects[0].Size, Position: int64(i) * 16 << 10, Length: 16 << 10,
			}},
		})
	}
	commit, err := appendCommit(nil, c)
	if err != nil {
		t.Fatal(err)
	}
	coder := growthCoder{follows: f}
	var first, later []byte
	for i := range growth {
		first = coder.appendGrowth(first, &growth[i])
	}
	for i := range growth {
		g := growth[i]
		g.Watermarks.High, g.Watermarks.LastStable = 200, 200
		later = coder.appendGrowth(later, &g)
	}
	for what, of := range map[string]struct {
		bytes []byte
		most  int
	}{"a commit": {commit, 20 * n}, "first growth": {first, 26 * n}, "growth": {later, 17 * n}} {
		t.Logf("%s: %.1f bytes a batch", what, float64(len(of.bytes))/n)
		if len(of.bytes) > of.most {
			t.Errorf("%s of %d partitions takes %d bytes, at most %d are planned", what, n, len(of.bytes), of.most)
		}
	}
}

func FuzzParseCommit(f *testing.F) {
	c := &metadata.Commit{AgentID: "a", Objects: []metadata.CommitObject{{ID: uuid.New(), Size: 9, Batches: []metadata.CommitBatch{{Length: 9, Records: 1}, {ProducerID: -1}}}}}
	b, err := appendCommit(nil, c)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseCommit(b)
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Fatalf("%v is not malformed", err)
			}
			return
		}
		again, err := appendCommit(nil, c)
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseCommit(again)
		if diff := cmp.Diff(c, back); err != nil || diff != "" {
			t.Fatalf("%v %s", err, diff)
		}
	})
}

func FuzzParseResults(f *testing.F) {
	c := &metadata.Commit{Objects: []metadata.CommitObject{{Batches: make([]metadata.CommitBatch, 2)}, {Batches: make([]metadata.CommitBatch, 1)}}}
	f.Add(appendResults(nil, [][]metadata.CommitResult{{{BaseOffset: 5}, {BaseOffset: -1, AppendTime: 7, LogStartOffset: 3}}, {{}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		results, err := parseResults(b, c)
		if err != nil {
			return
		}
		back, err := parseResults(appendResults(nil, results), c)
		if diff := cmp.Diff(results, back); err != nil || diff != "" {
			t.Fatalf("%v %s", err, diff)
		}
	})
}

// FuzzStream gives both parsers of a stream bytes of anybody's making.
func FuzzStream(f *testing.F) {
	client := newFollows()
	wants := client.appendWants(nil, []lease.Key{{Partition: 1}, {Partition: 2}}, nil)
	coder := growthCoder{follows: client}
	growth := coder.appendGrowth(nil, &metadata.Growth{Key: lease.Key{Partition: 2}, Watermarks: metadata.Watermarks{High: 5}, Extents: []metadata.Extent{{EndOffset: 5}}})
	f.Add(wants, growth)
	f.Fuzz(func(t *testing.T, wants, growth []byte) {
		follows := newFollows()
		add, _, err := follows.parseWants(wants)
		if len(add) > len(wants) || len(follows.numbers) > len(wants) {
			t.Fatalf("%d bytes made %d keys", len(wants), len(add))
		}
		if err != nil {
			return
		}
		coder := growthCoder{follows: follows}
		all, _ := coder.parseGrowth(growth)
		extents := 0
		for _, g := range all {
			extents += len(g.Extents)
		}
		if leastExtent*extents > len(growth) {
			t.Fatalf("%d bytes made %d extents", len(growth), extents)
		}
	})
}
