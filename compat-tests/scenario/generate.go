package scenario

import (
	"fmt"
	"math/rand/v2"
)

const (
	// Partitions is the partition count of the scenario's topics.
	Partitions = 3
	// BigValue is the length in bytes of the longest value, which is not compressed: more than a batch may have by default.
	BigValue = 1 << 20
	// LargeValue is the length in bytes of the longest value under each of the other codecs: several of their blocks.
	LargeValue = 1 << 18
	// MaxMessageBytes is the max.message.bytes that the scenario's topics need, and the largest request of its producers.
	MaxMessageBytes = 4 << 20

	// firstTimestamp is when the records say that they were made, 2024-01-01: far enough in the past that no clock
	// is mistaken for it.
	firstTimestamp = 1_704_067_200_000
	// Plain records come in stretches with the same headers, for clients that must start anew to change them.
	stretches = 3
	stretch   = 7
)

// TopicConfigs are the topic configurations that the scenario needs. Its timestamps lie in the past, so no time-based
// retention.
func TopicConfigs() map[string]string {
	return map[string]string{
		"max.message.bytes": fmt.Sprint(MaxMessageBytes),
		"retention.ms":      "-1",
	}
}

// Profile is what a producer's client is able to express.
type Profile struct {
	// Codecs are those of Codecs that it has.
	Codecs []string
	// Timestamps: it sends the timestamps that it is told.
	Timestamps bool
	// Oddities: it can send an empty value under a null key, and a header without a name.
	Oddities bool
	// NoNullRecords: it refuses to send a record whose key and value are both null.
	NoNullRecords bool
	// NoNullHeaders: it refuses to send a header whose value is null.
	NoNullHeaders bool
}

// Generate returns the records to produce with one codec, in the order in which to produce them. The same arguments
// give the same records. All records with the same shape of value appear in every partition, a value of BigValue or
// LargeValue bytes in one.
//
// Header names and values avoid commas, equals signs and the value NULL, since kcat's output could not be parsed
// otherwise; null and empty values, repeated names and bytes beyond ASCII do occur.
func Generate(seed uint64, codec int, profile Profile) []Record {
	g := generator{rand: rand.New(rand.NewPCG(seed, uint64(codec))), profile: profile, codec: codec}
	for partition := range int32(Partitions) {
		g.partition = partition
		g.edgeCases()
		for range stretches {
			headers := g.headers()
			for range stretch {
				g.add(g.text(16), g.text(200), headers)
			}
		}
	}
	g.partition = int32(codec % Partitions)
	longest := LargeValue
	if codec == 0 {
		longest = BigValue
	}
	g.add(g.text(16), g.long(longest), nil)
	return g.records
}

// Few returns n small records for each partition, other ones for each round.
func Few(seed uint64, round, n int, profile Profile) []Record {
	g := generator{rand: rand.New(rand.NewPCG(seed, uint64(round))), profile: profile, codec: round}
	for partition := range int32(Partitions) {
		g.partition = partition
		for range n {
			g.add(g.text(16), g.text(100), nil)
		}
	}
	return g.records
}

type generator struct {
	rand      *rand.Rand
	profile   Profile
	codec     int // or round: what makes the timestamps different
	partition int32
	records   []Record
}

func (g *generator) edgeCases() {
	empty := []byte{}
	g.add(nil, g.text(40), nil)
	g.add(g.text(8), nil, nil)
	if !g.profile.NoNullRecords {
		g.add(nil, nil, nil)
	}
	g.add(g.text(8), empty, nil)
	g.add(empty, g.text(40), nil)
	g.add(empty, empty, nil)
	g.add(g.bytes(300), g.bytes(3000), nil)
	g.add(g.text(8), g.text(10_000), nil)
	g.add(g.text(8), g.text(8), []Header{
		{"trace", []byte("a1")}, {"trace", []byte("a2")}, {"empty", empty}, {"null", g.null()}, {"größe", []byte("≈ 3 µm")},
	})
	if g.profile.Oddities {
		g.add(nil, empty, []Header{{"", []byte("no name")}, {"", g.null()}})
	}
}

func (g *generator) add(key, value []byte, headers []Header) {
	timestamp := ClientTime
	if g.profile.Timestamps {
		// A second between records and up to three of disorder, so that a later record may be the older one.
		timestamp = firstTimestamp + int64(g.codec*1000+len(g.records))*1000 + g.rand.Int64N(3000)
	}
	g.records = append(g.records, Record{Partition: g.partition, Timestamp: timestamp, Key: key, Value: value, Headers: headers})
}

// null is the value of a header that is null, for a client that can send it, or else empty.
func (g *generator) null() []byte {
	if g.profile.NoNullHeaders {
		return []byte{}
	}
	return nil
}

func (g *generator) headers() []Header {
	headers := make([]Header, g.rand.IntN(3))
	for i := range headers {
		headers[i] = Header{Key: string(g.text(6)), Value: g.text(12)}
	}
	return headers
}

// text returns up to n bytes of words that compress well.
func (g *generator) text(n int) []byte {
	const alphabet = "abcdefgh "
	b := make([]byte, 1+g.rand.IntN(n))
	for i := range b {
		b[i] = alphabet[g.rand.IntN(len(alphabet))]
	}
	return b
}

func (g *generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.rand.Uint32())
	}
	return b
}

// long returns n bytes: half noise, so that no codec makes them few, and half repetition, so that each makes them fewer.
func (g *generator) long(n int) []byte {
	return append(g.bytes(n/2), make([]byte, n/2)...)
}
