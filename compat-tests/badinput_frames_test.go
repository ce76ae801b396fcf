package compattests

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// malformed sends requests of every API, cut off at many points, with counts blown up and with bytes changed at random.
// What is cut off ends the connection without an answer; of the rest, some are requests still, and are answered.
func (b *badInput) malformed(t *testing.T) {
	budget := mutations{cuts: 25, counts: 25, flips: 15, versions: 2}
	if slow(t) {
		budget = mutations{cuts: 1000, counts: 1000, flips: 300, versions: 100}
	}
	work := make(chan mutant, 100)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for m := range work {
				if err := b.sendMutant(m); err != nil {
					t.Errorf("%s: %x: %v", m.what, m.bytes[:min(len(m.bytes), 200)], err)
				}
			}
		})
	}
	sent := 0
	for _, key := range slices.Sorted(maps.Keys(b.versions)) {
		if !ofClients(key) {
			continue
		}
		for _, version := range budget.choose(b.versions[key]) {
			request := kmsg.RequestForKey(key)
			fill(reflect.ValueOf(request).Elem())
			request.SetVersion(version)
			for m := range budget.of(frame(request), fmt.Sprintf("%s v%d", kmsg.NameForKey(key), version), b.random) {
				work <- m
				sent++
			}
		}
	}
	close(work)
	workers.Wait()
	t.Logf("%d malformed requests", sent)
}

// ofClients says whether an API is for clients; those of brokers would change Apache Kafka's cluster.
func ofClients(key int16) bool {
	switch kmsg.Key(key) {
	case kmsg.DescribeCluster, kmsg.DescribeProducers, kmsg.DescribeTransactions, kmsg.ListTransactions, kmsg.ConsumerGroupHeartbeat,
		kmsg.ConsumerGroupDescribe, kmsg.DescribeTopicPartitions:
		return true
	}
	return key <= kmsg.DescribeUserSCRAMCredentials.Int16()
}

// fill gives a request one element in each of its arrays, and a few bytes in all that may have some.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("nonsense")
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Struct:
		if d, ok := v.Addr().Interface().(interface{ Default() }); ok {
			d.Default()
		}
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() && v.Type().Field(i).Name != "UnknownTags" {
				fill(f)
			}
		}
	}
}

// mutations says how many mutants of each request are made.
type mutations struct{ cuts, counts, flips, versions int }

// mutant is what became of a request.
type mutant struct {
	what  string
	bytes []byte
	cut   bool
}

// choose returns the versions that are tested of a range: its ends first.
func (m mutations) choose(served [2]int16) (versions []int16) {
	for v := served[0]; v <= served[1]; v++ {
		if m.versions > 2 || v == served[0] || v == served[1] {
			versions = append(versions, v)
		}
	}
	return versions
}

// of makes mutants of a frame.
func (m mutations) of(frame []byte, name string, random *rand.Rand) func(yield func(mutant) bool) {
	const body = 12 // size, key, version, correlation id
	return func(yield func(mutant) bool) {
		for _, at := range evenly(body, len(frame), m.cuts) {
			cut := slices.Clone(frame[:at])
			binary.BigEndian.PutUint32(cut, uint32(at-4))
			if !yield(mutant{fmt.Sprintf("%s cut off at %d", name, at), cut, true}) {
				return
			}
		}
		for _, at := range evenly(body, len(frame), m.counts) {
			for _, count := range [][]byte{{0x7f, 0xff, 0xff, 0xff}, {0xff, 0xff, 0xff, 0xfe}, {0xff, 0xff, 0xff, 0xff, 0x0f}} {
				blown := slices.Clone(frame)
				copy(blown[at:], count)
				if !yield(mutant{fmt.Sprintf("%s with %x at %d", name, count, at), blown, false}) {
					return
				}
			}
		}
		for range m.flips {
			flipped := slices.Clone(frame)
			for range 1 + random.IntN(4) {
				flipped[body+random.IntN(len(frame)-body)] = byte(random.Uint32())
			}
			if !yield(mutant{name + " with other bytes", flipped, false}) {
				return
			}
		}
	}
}

// evenly returns up to n numbers of [from, to).
func evenly(from, to, n int) (numbers []int) {
	n = min(n, to-from)
	for i := range n {
		numbers = append(numbers, from+i*(to-from)/n)
	}
	return numbers
}

// sendMutant sends a mutant and nothing more, and waits for the end of the connection. It reports a broker that neither
// answers nor closes, one that answers half a request, and one that is not there any more.
func (b *badInput) sendMutant(m mutant) error {
	c, err := b.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(m.bytes); err != nil && !isReset(err) {
		return err
	}
	if m.cut {
		return rawConn{c}.closed()
	}
	// One who leaves is not kept waiting, whatever he has asked for.
	if err := c.CloseWrite(); err != nil && !isReset(err) {
		return err
	}
	if _, err := io.Copy(io.Discard, c); err != nil && !isReset(err) {
		return err
	}
	return nil
}
