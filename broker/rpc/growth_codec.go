package rpc

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// Up a stream go changes of what is followed:
//
//	dropped   uvarint, then the number of each key
//	topics    uvarint, then of each
//	  id          16 bytes
//	  partitions  uvarint, then each as a varint from the one before
//
// Keys that are added are numbered in this order, by both sides, and no number is
// used twice. Down it go messages of growth, one key after the other until the
// message's end; one without a key is a sign of life. Of each key:
//
//	number        uvarint
//	flags         1 byte
//	leader epoch  varint  }
//	leader        text    } where the flags say that it
//	log start     varint  } is not as it was told last
//	high          varint, from that last told
//	not stable    varint: high less last stable, where the flags say that it is not 0
//	extents       uvarint, then of each
//	  flags       1 byte
//	  leader epoch varint, where the flags say that it is not that of the watermarks
//	  base        varint, from the end of the one before; of the first from the last high
//	  offsets     varint
//	  timestamp   varint, from the last one in the stream
//	  append time varint, from the timestamp, where the flags say that there is one
//	  object      16 bytes and its size as a varint, where the flags say that it is another
//	  position    varint, from the end of the one before in the object
//	  length      varint
//
// Record bytes never go: growth that has some is told without its extents, and so is
// growth of very many extents.
const (
	newEpoch = 1 << iota
	newLeader
	newLogStart
	notStable
	knownGrowthFlags = 1<<iota - 1
)

const (
	otherEpoch = 1 << iota
	hasAppendTime
	newObject
	knownExtentFlags = 1<<iota - 1
)

const (
	leastExtent       = 6
	maxGrowthExtents  = 1024
	enoughOfAFrame    = 32 << 10 // bytes, from which on what follows goes into the next
	leastTopicOfWants = 17
)

// follows numbers the keys of one stream. Both sides have one, and make the same
// changes to it.
type follows struct {
	numbers map[lease.Key]uint64
	told    map[uint64]*told
	next    uint64
}

// told is what was told last of a key.
type told struct {
	key   lease.Key
	marks metadata.Watermarks
}

func newFollows() *follows {
	return &follows{numbers: make(map[lease.Key]uint64), told: make(map[uint64]*told)}
}

func (f *follows) add(k lease.Key) {
	f.numbers[k] = f.next
	f.told[f.next] = &told{key: k}
	f.next++
}

func (f *follows) drop(k lease.Key) {
	delete(f.told, f.numbers[k])
	delete(f.numbers, k)
}

// appendWants makes changes and encodes them. Keys that are followed already are not
// added again, nor are those beyond MaxFollowed; those that are not are not dropped.
func (f *follows) appendWants(b []byte, add, drop []lease.Key) []byte {
	gone := make([]byte, 0, 2*len(drop))
	count := 0
	for _, k := range drop {
		if number, ok := f.numbers[k]; ok {
			gone = binary.AppendUvarint(gone, number)
			count++
			f.drop(k)
		}
	}
	b = append(binary.AppendUvarint(b, uint64(count)), gone...)

	fresh := make([]lease.Key, 0, len(add))
	for _, k := range add {
		if _, ok := f.numbers[k]; !ok {
			fresh = append(fresh, k)
		}
	}
	slices.SortFunc(fresh, lease.Key.Compare)
	fresh = slices.Compact(fresh)
	fresh = fresh[:min(len(fresh), max(0, MaxFollowed-len(f.numbers)))]
	topics := 0
	for i, k := range fresh {
		if i == 0 || k.TopicID != fresh[i-1].TopicID {
			topics++
		}
		f.add(k)
	}
	b = binary.AppendUvarint(b, uint64(topics))
	for len(fresh) > 0 {
		topic := fresh[0].TopicID
		n := slices.IndexFunc(fresh, func(k lease.Key) bool { return k.TopicID != topic })
		if n < 0 {
			n = len(fresh)
		}
		b = binary.AppendUvarint(append(b, topic[:]...), uint64(n))
		last := int32(0)
		for _, k := range fresh[:n] {
			b = binary.AppendVarint(b, int64(k.Partition)-int64(last))
			last = k.Partition
		}
		fresh = fresh[n:]
	}
	return b
}

// parseWants decodes changes, makes them, and returns them.
func (f *follows) parseWants(b []byte) (add, drop []lease.Key, err error) {
	d := decoder{b: b}
	for range d.count(1) {
		t := f.told[d.uvarint()]
		if t == nil {
			d.fail()
			break
		}
		drop = append(drop, t.key)
		f.drop(t.key)
	}
	for range d.count(leastTopicOfWants) {
		topic, last := d.id(), int64(0)
		for range d.count(1) {
			last += d.varint()
			k := lease.Key{TopicID: topic, Partition: int32(last)}
			if _, twice := f.numbers[k]; twice || int64(k.Partition) != last || len(f.numbers) >= MaxFollowed {
				d.fail()
				break
			}
			f.add(k)
			add = append(add, k)
		}
	}
	return add, drop, d.end()
}

// growthCoder is what both sides of a stream know of the growth that went through it.
type growthCoder struct {
	follows   *follows
	timestamp int64
	object    uuid.UUID
	size      int64
	position  int64 // where the last extent ends in the object
}

// appendGrowth encodes growth of a key that is followed, and nothing of others.
func (c *growthCoder) appendGrowth(b []byte, g *metadata.Growth) []byte {
	number, ok := c.follows.numbers[g.Key]
	if !ok {
		return b
	}
	t, w := c.follows.told[number], &g.Watermarks
	var flags byte
	for _, f := range []struct {
		flag byte
		set  bool
	}{
		{newEpoch, w.LeaderEpoch != t.marks.LeaderEpoch},
		{newLeader, w.LeaderID != t.marks.LeaderID},
		{newLogStart, w.LogStart != t.marks.LogStart},
		{notStable, w.LastStable != w.High},
	} {
		if f.set {
			flags |= f.flag
		}
	}
	b = append(binary.AppendUvarint(b, number), flags)
	if flags&newEpoch != 0 {
		b = binary.AppendVarint(b, int64(w.LeaderEpoch))
	}
	if flags&newLeader != 0 {
		b = appendText(b, w.LeaderID)
	}
	if flags&newLogStart != 0 {
		b = binary.AppendVarint(b, w.LogStart)
	}
	b = binary.AppendVarint(b, w.High-t.marks.High)
	if flags&notStable != 0 {
		b = binary.AppendVarint(b, w.High-w.LastStable)
	}
	extents := g.Extents
	if len(extents) > maxGrowthExtents || slices.ContainsFunc(extents, func(e metadata.Extent) bool { return e.Inline != nil }) {
		extents = nil
	}
	b = binary.AppendUvarint(b, uint64(len(extents)))
	next := t.marks.High
	for i := range extents {
		b = c.appendExtent(b, &extents[i], next, w.LeaderEpoch)
		next = extents[i].EndOffset
	}
	t.marks = *w
	return b
}

func (c *growthCoder) appendExtent(b []byte, e *metadata.Extent, next int64, epoch int32) []byte {
	var flags byte
	if e.LeaderEpoch != epoch {
		flags |= otherEpoch
	}
	if e.AppendTime != -1 {
		flags |= hasAppendTime
	}
	if e.Object != c.object || e.ObjectSize != c.size {
		flags |= newObject
	}
	b = append(b, flags)
	if flags&otherEpoch != 0 {
		b = binary.AppendVarint(b, int64(e.LeaderEpoch))
	}
	b = binary.AppendVarint(b, e.BaseOffset-next)
	b = binary.AppendVarint(b, e.EndOffset-e.BaseOffset)
	b = binary.AppendVarint(b, e.MaxTimestamp-c.timestamp)
	if flags&hasAppendTime != 0 {
		b = binary.AppendVarint(b, e.AppendTime-e.MaxTimestamp)
	}
	if flags&newObject != 0 {
		b = binary.AppendVarint(append(b, e.Object[:]...), e.ObjectSize)
		c.object, c.size, c.position = e.Object, e.ObjectSize, 0
	}
	b = binary.AppendVarint(b, e.Position-c.position)
	b = binary.AppendVarint(b, e.Length)
	c.timestamp, c.position = e.MaxTimestamp, e.Position+e.Length
	return b
}

// parseGrowth decodes a message. Growth of keys that were dropped meanwhile is left
// out.
func (c *growthCoder) parseGrowth(b []byte) ([]metadata.Growth, error) {
	d := decoder{b: b}
	var all []metadata.Growth
	for len(d.b) > 0 {
		number := d.uvarint()
		if number >= c.follows.next {
			return nil, fmt.Errorf("%w: growth of a key that was not asked for", errMalformed)
		}
		t := c.follows.told[number]
		dropped := t == nil
		if dropped {
			t = new(told)
		}
		g := c.parseOne(&d, t)
		if !dropped {
			all = append(all, g)
		}
	}
	return all, d.end()
}

func (c *growthCoder) parseOne(d *decoder, t *told) metadata.Growth {
	flags, w := d.byte(), t.marks
	if flags&^knownGrowthFlags != 0 {
		d.fail()
	}
	if flags&newEpoch != 0 {
		w.LeaderEpoch = d.int32()
	}
	if flags&newLeader != 0 {
		w.LeaderID = d.text()
	}
	if flags&newLogStart != 0 {
		w.LogStart = d.varint()
	}
	w.High += d.varint()
	w.LastStable = w.High
	if flags&notStable != 0 {
		w.LastStable -= d.varint()
	}
	g := metadata.Growth{Key: t.key, Watermarks: w}
	n := d.count(leastExtent)
	if n > maxGrowthExtents {
		d.fail()
		n = 0
	}
	next := t.marks.High
	if n > 0 {
		g.Extents = make([]metadata.Extent, n)
	}
	for i := range g.Extents {
		c.parseExtent(d, &g.Extents[i], next, w.LeaderEpoch)
		next = g.Extents[i].EndOffset
	}
	t.marks = w
	return g
}

func (c *growthCoder) parseExtent(d *decoder, e *metadata.Extent, next int64, epoch int32) {
	flags := d.byte()
	if flags&^knownExtentFlags != 0 {
		d.fail()
	}
	e.LeaderEpoch, e.AppendTime = epoch, -1
	if flags&otherEpoch != 0 {
		e.LeaderEpoch = d.int32()
	}
	e.BaseOffset = next + d.varint()
	e.EndOffset = e.BaseOffset + d.varint()
	e.MaxTimestamp = c.timestamp + d.varint()
	if flags&hasAppendTime != 0 {
		e.AppendTime = e.MaxTimestamp + d.varint()
	}
	if flags&newObject != 0 {
		c.object, c.size, c.position = d.id(), d.varint(), 0
	}
	e.Object, e.ObjectSize = c.object, c.size
	e.Position = c.position + d.varint()
	e.Length = d.varint()
	c.timestamp, c.position = e.MaxTimestamp, e.Position+e.Length
}
