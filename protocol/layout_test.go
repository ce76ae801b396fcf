package protocol

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// allRequests calls fn for every API and version that kmsg has.
func allRequests(fn func(key, version int16)) {
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		req := kmsg.RequestForKey(key)
		if req == nil {
			continue
		}
		for v := int16(0); v <= req.MaxVersion(); v++ {
			fn(key, v)
		}
	}
}

// fill gives v random contents. Arrays get lengths up to 3; sometimes a field
// keeps its default, so that tagged fields come and go.
func fill(rnd *rand.Rand, v reflect.Value) {
	if v.Type() == tagsType {
		for range rnd.IntN(3) {
			v.Addr().Interface().(*kmsg.Tags).Set(1000+rnd.Uint32N(1<<20), make([]byte, rnd.IntN(5)))
		}
		return
	}
	if v.Kind() != reflect.Struct && rnd.IntN(4) == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		setDefaults(v)
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "Version" {
				fill(rnd, v.Field(i))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(rnd, v.Elem())
	case reflect.Slice:
		n := rnd.IntN(4)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(rnd, v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(rnd, v.Index(i))
		}
	case reflect.String:
		v.SetString("abcdefgh"[:rnd.IntN(9)])
	case reflect.Bool:
		v.SetBool(rnd.IntN(2) == 0)
	case reflect.Float64:
		v.SetFloat(rnd.Float64())
	case reflect.Uint8, reflect.Uint16:
		v.SetUint(uint64(rnd.IntN(200)))
	default:
		v.SetInt(int64(rnd.IntN(100)))
	}
}

func TestLayoutsAcceptWhatKmsgEncodes(t *testing.T) {
	allRequests(func(key, version int16) {
		t.Run(fmt.Sprintf("%s/v%d", kmsg.NameForKey(key), version), func(t *testing.T) {
			l, err := layoutOf(key, version)
			if err != nil {
				t.Fatal(err)
			}
			rnd := rand.New(rand.NewPCG(uint64(key), uint64(version)))
			for range 100 {
				req := kmsg.RequestForKey(key)
				fill(rnd, reflect.ValueOf(req).Elem())
				req.SetVersion(version)
				body := req.AppendTo(nil)
				if rest, _, err := l.check(append(body, 7)); err != nil || !bytes.Equal(rest, []byte{7}) {
					t.Fatalf("check: %x is left, %v\n%#v\n%x", rest, err, req, body)
				}
				for cut := range body {
					if _, _, err := l.check(body[:cut]); err == nil {
						t.Fatalf("the first %d bytes were accepted\n%#v\n%x", cut, req, body)
					}
				}
			}
		})
	})
}
