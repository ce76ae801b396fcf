package scenario

import (
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var everything = Profile{Timestamps: true, Oddities: true}

func fullLog(profile Profile) Log {
	var log Log
	for codec := range Codecs {
		log.Append(Generate(1, codec, profile))
	}
	return log
}

func TestGenerateIsDeterministic(t *testing.T) {
	for codec := range Codecs {
		if !reflect.DeepEqual(Generate(1, codec, everything), Generate(1, codec, everything)) {
			t.Errorf("codec %d: the same seed gives other records", codec)
		}
		if reflect.DeepEqual(Generate(1, codec, everything), Generate(2, codec, everything)) {
			t.Errorf("codec %d: another seed gives the same records", codec)
		}
	}
}

func TestGenerateCoversTheShapesOfRecords(t *testing.T) {
	shapes := map[string]func(Record) bool{
		"null key":      func(r Record) bool { return r.Key == nil },
		"empty key":     func(r Record) bool { return r.Key != nil && len(r.Key) == 0 },
		"null value":    func(r Record) bool { return r.Value == nil },
		"empty value":   func(r Record) bool { return r.Value != nil && len(r.Value) == 0 },
		"null and null": func(r Record) bool { return r.Key == nil && r.Value == nil },
		"large value":   func(r Record) bool { return len(r.Value) >= LargeValue },
		"headers":       func(r Record) bool { return len(r.Headers) > 1 },
		"null header value": func(r Record) bool {
			return slices.ContainsFunc(r.Headers, func(h Header) bool { return h.Value == nil })
		},
	}
	for _, profile := range []Profile{{}, everything} {
		for name, has := range shapes {
			for codec := range Codecs {
				if !slices.ContainsFunc(Generate(1, codec, profile), has) {
					t.Errorf("profile %+v, codec %d: no record with %s", profile, codec, name)
				}
			}
		}
	}
}

// TestOffsetsAgreesWithItsDefinition compares with a search that is written down differently.
func TestOffsetsAgreesWithItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var log Log
		for i, timestamp := range rapid.SliceOfN(rapid.Int64Range(0, 20), 1, 30).Draw(t, "timestamps") {
			log.Append([]Record{{Partition: int32(i % Partitions), Timestamp: timestamp}})
		}
		timestamp := rapid.Int64Range(0, 21).Draw(t, "timestamp")
		offsets, since := log.Offsets(timestamp), log.Since(timestamp)
		for p, records := range log {
			want := NoOffset
			for i := len(records) - 1; i >= 0; i-- {
				if records[i].Timestamp >= timestamp {
					want = int64(i)
				}
			}
			if offsets[p] != want {
				t.Errorf("partition %d: offset %d, want %d", p, offsets[p], want)
			}
			if len(since[p]) > 0 && since[p][0].Offset != want {
				t.Errorf("partition %d: reading begins at %d, want %d", p, since[p][0].Offset, want)
			}
			if (want == NoOffset) != (len(since[p]) == 0) {
				t.Errorf("partition %d: %d records from offset %d on", p, len(since[p]), want)
			}
		}
	})
}

func TestTimestampsReachBothSides(t *testing.T) {
	log := fullLog(everything)
	timestamps := log.Timestamps()
	if before := log.Offsets(timestamps[0]); before != [Partitions]int64{} {
		t.Errorf("before the first record: %v", before)
	}
	if after := log.Offsets(timestamps[len(timestamps)-1]); after != [Partitions]int64{NoOffset, NoOffset, NoOffset} {
		t.Errorf("after the last record: %v", after)
	}
}

// TestCompareCatchesAnyChange spoils one record of what was read, or loses, repeats or swaps records.
func TestCompareCatchesAnyChange(t *testing.T) {
	log := fullLog(everything)
	whole := slices.Concat(log[:]...)
	if err := log.Compare(whole); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		read := slices.Clone(whole)
		i := rapid.IntRange(0, len(read)-2).Draw(t, "record")
		r := &read[i]
		changes := map[string]func(){
			"partition": func() { r.Partition = (r.Partition + 1) % Partitions },
			"offset":    func() { r.Offset++ },
			"timestamp": func() { r.Timestamp++ },
			"key":       func() { r.Key = append(slices.Clone(r.Key), 'x') },
			"value":     func() { r.Value = append(slices.Clone(r.Value), 'x') },
			"header":    func() { r.Headers = append(slices.Clone(r.Headers), Header{Key: "x"}) },
			"nullness": func() {
				if r.Key == nil {
					r.Key = []byte{}
				} else {
					r.Key = nil
				}
			},
			"loss":       func() { read = slices.Delete(read, i, i+1) },
			"repetition": func() { read = slices.Insert(read, i, *r) },
			"last lost":  func() { read = read[:len(read)-1] },
		}
		names := make([]string, 0, len(changes))
		for name := range changes {
			names = append(names, name)
		}
		slices.Sort(names)
		changes[rapid.SampledFrom(names).Draw(t, "change")]()
		if err := log.Compare(read); err == nil {
			t.Error("nothing caught")
		}
	})
}

func TestAdoptTimestamps(t *testing.T) {
	log := fullLog(Profile{})
	read := slices.Concat(log[:]...)
	for i := range read {
		read[i].Timestamp = 1000 + int64(i)
	}
	if err := log.AdoptTimestamps(read, 1001, 5000); err == nil {
		t.Error("a timestamp before the producer began is accepted")
	}
	log = fullLog(Profile{})
	if err := log.AdoptTimestamps(read, 1000, 5000); err != nil {
		t.Error(err)
	}
	if err := log.Compare(read); err != nil {
		t.Error(err)
	}
}

// TestCompareTellsEmptyFromNull but for a client that can't.
func TestCompareTellsEmptyFromNull(t *testing.T) {
	var log Log
	log.Append([]Record{{Key: []byte{}, Value: []byte{}, Headers: []Header{{Key: "empty", Value: []byte{}}}}})
	read := Record{Headers: []Header{{Key: "empty"}}}
	if log.Compare([]Record{read}) == nil {
		t.Error("null passes for empty")
	}
	read.EmptyAsNull = true
	if err := log.Compare([]Record{read}); err != nil {
		t.Error(err)
	}
	read.Value = []byte("v")
	if log.Compare([]Record{read}) == nil {
		t.Error("a value passes for an empty one")
	}
}
