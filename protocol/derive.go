package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A layout is learned by asking kmsg to encode: a field of a struct is changed,
// and the encoding tells whether the field is there at this version (it changes),
// in its place (by as much as the value takes), or in the tagged section (by more,
// as its tag and size come too). kmsg's structs list fields in wire order; tests
// hold every API and version against what kmsg encodes.

// probeTag is a tag that no Kafka API uses. It is three bytes in a tagged section:
// two for itself, one for its size of 0.
const (
	probeTag      = 9999
	probeTagBytes = 3
)

var errLayout = errors.New("no wire layout can be derived")

var tagsType = reflect.TypeFor[kmsg.Tags]()

// encoder encodes a message in which change was applied to one struct somewhere
// inside it, which is there with its defaults.
type encoder func(change func(s reflect.Value)) []byte

// layoutOf returns the layout of a request.
func layoutOf(key, version int16) (*layout, error) {
	encode := func(change func(reflect.Value)) []byte {
		req := kmsg.RequestForKey(key)
		req.SetVersion(version)
		change(reflect.ValueOf(req).Elem())
		return req.AppendTo(nil)
	}
	req := kmsg.RequestForKey(key)
	req.SetVersion(version)
	t := reflect.TypeOf(req).Elem()
	d := deriver{flexible: req.IsFlexible()}
	return d.structure(t, encode)
}

type deriver struct{ flexible bool }

func (d deriver) structure(t reflect.Type, encode encoder) (*layout, error) {
	l := &layout{flexible: d.flexible}
	for i := range t.NumField() {
		sf := t.Field(i)
		if sf.Type == tagsType || sf.Name == "Version" && i == 0 {
			continue
		}
		p, err := d.probe(sf.Type, i, encode)
		if err != nil {
			return nil, fmt.Errorf("%w: %s.%s: %w", errLayout, t.Name(), sf.Name, err)
		}
		switch p.place {
		case tagPlace:
			l.tagged = append(l.tagged, tagged{tag: p.tag, field: p.field})
		case inline:
			if last := len(l.fields) - 1; last >= 0 && p.field.kind == kindFixed && l.fields[last].kind == kindFixed {
				l.fields[last].size += p.field.size
				continue
			}
			l.fields = append(l.fields, p.field)
		}
	}
	return l, nil
}

type place uint8

const (
	absent place = iota
	inline
	tagPlace
)

// probed is what probing a field has shown.
type probed struct {
	place place
	tag   uint32
	field field
}

// probe learns about field i, of type t, of the struct that encode changes.
func (d deriver) probe(t reflect.Type, i int, encode encoder) (probed, error) {
	set := func(v any) []byte {
		return encode(func(s reflect.Value) { s.Field(i).Set(reflect.ValueOf(v).Convert(t)) })
	}
	null := func() []byte { return encode(func(s reflect.Value) { s.Field(i).SetZero() }) }
	switch t.Kind() {
	case reflect.String:
		return d.compare(field{kind: kindString}, null(), set("x"), 1)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return d.compare(field{kind: kindBytes}, null(), set([]byte{1}), 1)
		}
		return d.slice(t, i, encode, null())
	case reflect.Struct:
		return d.nested(t, encode, func(s reflect.Value) reflect.Value { return s.Field(i) })
	case reflect.Pointer:
		if t.Elem().Kind() == reflect.String {
			x := encode(func(s reflect.Value) { s.Field(i).Set(reflect.ValueOf(kmsg.StringPtr("x"))) })
			return d.compare(field{kind: kindString}, null(), x, 1)
		}
		return d.optional(t.Elem(), i, encode)
	default:
		size, err := fixedSize(t)
		if err != nil {
			return probed{}, err
		}
		other := encode(func(s reflect.Value) { s.Field(i).Set(unlike(s.Field(i))) })
		return d.compare(field{kind: kindFixed, size: size}, encode(func(reflect.Value) {}), other, 0)
	}
}

// compare places a field by two encodings of which the second, were the field
// inline, would be grow bytes longer.
func (d deriver) compare(f field, base, with []byte, grow int) (probed, error) {
	at := firstDifference(base, with)
	switch {
	case at < 0:
		return probed{place: absent}, nil
	case len(with)-len(base) == grow:
		return probed{place: inline, field: f}, nil
	}
	// Here the count of tagged fields goes up by one; the new one's tag follows.
	if !d.flexible || with[at] != base[at]+1 {
		return probed{}, errors.New("neither inline nor tagged")
	}
	tag, n := binary.Uvarint(with[at+1:])
	if n <= 0 {
		return probed{}, errors.New("no tag")
	}
	return probed{place: tagPlace, tag: uint32(tag), field: f}, nil
}

// slice learns about an array. null is the encoding without it: a tagged array may
// be there although it is empty, and a null array is as long as an empty one.
func (d deriver) slice(t reflect.Type, i int, encode encoder, null []byte) (probed, error) {
	sized := func(n int, change func(elem reflect.Value)) []byte {
		return encode(func(s reflect.Value) {
			s.Field(i).Set(reflect.MakeSlice(t, n, n))
			for k := range n {
				setDefaults(s.Field(i).Index(k))
			}
			change(s.Field(i).Index(0))
		})
	}
	none := func(reflect.Value) {}
	one, two := sized(1, none), sized(2, none)
	elem := &field{}
	p, err := d.compare(field{kind: kindArray, mem: int(t.Elem().Size()), elem: elem}, null, one, len(two)-len(one))
	if err != nil || p.place == absent {
		return p, err
	}
	switch et := t.Elem(); et.Kind() {
	case reflect.String:
		elem.kind = kindString
	case reflect.Struct:
		elem.kind = kindStruct
		elem.of, err = d.structure(et, func(change func(reflect.Value)) []byte { return sized(1, change) })
	default:
		elem.kind = kindFixed
		elem.size, err = fixedSize(et)
	}
	return p, err
}

// nested learns about a struct within a struct. An unknown tagged field in it
// makes it differ from its default, or it would not be encoded if it is tagged.
func (d deriver) nested(t reflect.Type, encode encoder, at func(s reflect.Value) reflect.Value) (probed, error) {
	marked := func(change func(reflect.Value)) []byte {
		return encode(func(s reflect.Value) {
			if d.flexible {
				mark(at(s))
			}
			change(at(s))
		})
	}
	none := func(reflect.Value) {}
	of, err := d.structure(t, marked)
	if err != nil {
		return probed{}, err
	}
	f := field{kind: kindStruct, of: of}
	if !d.flexible {
		if len(of.fields) == 0 {
			return probed{place: absent}, nil
		}
		return probed{place: inline, field: f}, nil
	}
	return d.compare(f, encode(none), marked(none), probeTagBytes)
}

// optional learns about a nullable struct, which is a byte -1 if it is null.
func (d deriver) optional(t reflect.Type, i int, encode encoder) (probed, error) {
	present := func(change func(reflect.Value)) []byte {
		return encode(func(s reflect.Value) {
			s.Field(i).Set(reflect.New(t))
			setDefaults(s.Field(i).Elem())
			change(s.Field(i).Elem())
		})
	}
	null := encode(func(s reflect.Value) { s.Field(i).SetZero() })
	with := present(func(reflect.Value) {})
	at := firstDifference(null, with)
	switch {
	case at < 0:
		return probed{place: absent}, nil
	case null[at] != 0xff:
		return probed{}, errors.New("a nullable struct that is tagged")
	}
	of, err := d.structure(t, present)
	return probed{place: inline, field: field{kind: kindOptional, mem: int(t.Size()), of: of}}, err
}

// fixedSize returns the bytes that a value of type t takes on the wire.
func fixedSize(t reflect.Type) (int, error) {
	switch t.Kind() {
	case reflect.Bool, reflect.Int8, reflect.Int16, reflect.Uint16, reflect.Int32, reflect.Int64, reflect.Float64:
		return int(t.Size()), nil
	case reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return t.Len(), nil
		}
	}
	return 0, fmt.Errorf("type %s", t)
}

// unlike returns a value that differs from v.
func unlike(v reflect.Value) reflect.Value {
	u := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.Bool:
		u.SetBool(!v.Bool())
	case reflect.Uint16:
		u.SetUint(v.Uint() ^ 1)
	case reflect.Float64:
		u.SetFloat(v.Float() + 1)
	case reflect.Array:
		u.Index(0).SetUint(v.Index(0).Uint() ^ 1)
	default:
		u.SetInt(v.Int() ^ 1)
	}
	return u
}

func setDefaults(v reflect.Value) {
	if d, ok := v.Addr().Interface().(interface{ Default() }); ok {
		d.Default()
	}
}

func mark(v reflect.Value) {
	v.FieldByName("UnknownTags").Addr().Interface().(*kmsg.Tags).Set(probeTag, nil)
}

// firstDifference returns the first index at which a and b differ, -1 if they are
// equal.
func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) == len(b) {
		return -1
	}
	return min(len(a), len(b))
}
