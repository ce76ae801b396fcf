// Package objstoretest holds the tests that every driver of objstore.Store
// passes, and a store in memory.
package objstoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/streamhouse/streamhouse/segment/objstore"
)

// Run runs the tests, each on an empty store of its own that open returns.
func Run(t *testing.T, open func(t *testing.T) objstore.Store) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s objstore.Store)
	}{
		{"PutThenGet", testPutThenGet},
		{"PutRefusesToOverwrite", testPutRefusesToOverwrite},
		{"PutRaceHasOneWinner", testPutRaceHasOneWinner},
		{"GetRanges", testGetRanges},
		{"AbsentIsNotFound", testAbsentIsNotFound},
		{"BadArguments", testBadArguments},
		{"Head", testHead},
		{"ListOrder", testListOrder},
		{"ListPrefixAndAfter", testListPrefixAndAfter},
		{"ListPages", testListPages},
		{"Delete", testDelete},
		{"DeleteMany", testDeleteMany},
		{"BigObject", testBigObject},
		{"Concurrency", testConcurrency},
		{"CancelledContext", testCancelledContext},
		{"Check", testCheck},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, open(t))
		})
	}
}

func put(t *testing.T, s objstore.Store, key string, body []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, body); err != nil {
		t.Fatalf("Put %s: %v", key, err)
	}
}

// want checks that key holds body.
func want(t *testing.T, s objstore.Store, key string, body []byte) {
	t.Helper()
	got, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatalf("Get %s: %v", key, err)
	}
	if !bytes.Equal(got, body) {
		t.Fatalf("Get %s: got %d bytes %.40q, want %d bytes %.40q", key, len(got), got, len(body), body)
	}
}

// list returns the keys, and fails the test if there is an error.
func list(t *testing.T, s objstore.Store, prefix, after string) []string {
	t.Helper()
	var keys []string
	for info, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatalf("List %q after %q: %v", prefix, after, err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func wantError(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: got error %v, want %v", what, err, target)
	}
}

// randomBytes returns the same n bytes for the same seed.
func randomBytes(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	body := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(body) // it has no errors
	return body
}

func testPutThenGet(t *testing.T, s objstore.Store) {
	for _, key := range []string{"a", "segments/7f/x.seg", "deep/er/and/deep/er", "Odd-chars_~!$&'()*+,=@:;^%20#?[]{}|<>\""} {
		body := []byte("content of " + key)
		put(t, s, key, body)
		want(t, s, key, body)
	}
	put(t, s, "one-byte", []byte{0})
	want(t, s, "one-byte", []byte{0})
}

func testPutRefusesToOverwrite(t *testing.T, s objstore.Store) {
	put(t, s, "k/1", []byte("first"))
	for _, body := range []string{"second", "first", "longer than the first"} {
		wantError(t, "Put again", s.Put(t.Context(), "k/1", []byte(body)), objstore.ErrExists)
	}
	want(t, s, "k/1", []byte("first"))
}

func testPutRaceHasOneWinner(t *testing.T, s objstore.Store) {
	const rounds, rivals = 8, 8
	for round := range rounds {
		key := fmt.Sprintf("race/%d", round)
		errs := make([]error, rivals)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = s.Put(t.Context(), key, randomBytes(uint64(i), 10_000+i)) })
		}
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Fatalf("%s: both %d and %d won", key, winner, i)
			case err == nil:
				winner = i
			case !errors.Is(err, objstore.ErrExists) && !errors.Is(err, objstore.ErrUnavailable):
				t.Errorf("%s: rival %d: got %v, want ErrExists, or ErrUnavailable for a conflict", key, i, err)
			}
		}
		if winner < 0 {
			t.Fatalf("%s: nobody won: %v", key, errors.Join(errs...))
		}
		want(t, s, key, randomBytes(uint64(winner), 10_000+winner))
	}
}

func testGetRanges(t *testing.T, s objstore.Store) {
	body := randomBytes(1, 1000)
	put(t, s, "r", body)
	for _, r := range []struct{ offset, length int64 }{
		{0, 1}, {0, 1000}, {1, 998}, {999, 1}, {500, 500}, {0, -1}, {1, -1}, {999, -1},
	} {
		got, err := s.Get(t.Context(), "r", r.offset, r.length)
		end := r.offset + r.length
		if r.length == -1 {
			end = 1000
		}
		if err != nil || !bytes.Equal(got, body[r.offset:end]) {
			t.Errorf("Get %d bytes at %d: got %d bytes, error %v", r.length, r.offset, len(got), err)
		}
	}
	for _, r := range []struct{ offset, length int64 }{
		{0, 1001}, {999, 2}, {1000, 1}, {1000, -1}, {5000, 1}, {5000, -1}, {-1, 1}, {0, 0}, {0, -2},
	} {
		_, err := s.Get(t.Context(), "r", r.offset, r.length)
		wantError(t, fmt.Sprintf("Get %d bytes at %d", r.length, r.offset), err, objstore.ErrRange)
	}
}

func testAbsentIsNotFound(t *testing.T, s objstore.Store) {
	put(t, s, "folder/object", []byte("x"))
	for _, key := range []string{"absent", "folder", "folder/absent", "absent/absent"} {
		_, err := s.Get(t.Context(), key, 0, -1)
		wantError(t, "Get "+key, err, objstore.ErrNotFound)
		_, err = s.Get(t.Context(), key, 10, 20)
		wantError(t, "Get range of "+key, err, objstore.ErrNotFound)
		_, err = s.Head(t.Context(), key)
		wantError(t, "Head "+key, err, objstore.ErrNotFound)
	}
}

func testBadArguments(t *testing.T, s objstore.Store) {
	for _, key := range []string{
		"", ".", "..", "../up", "/abs", "a//b", "a/", "a/../b", ".hidden", "a/.tmp/b", "a b", "a\x00b", "ü", `a\b`,
		strings.Repeat("k", objstore.MaxKeyLength+1),
	} {
		if err := s.Put(t.Context(), key, []byte("x")); err == nil {
			t.Errorf("Put %.40q: want an error", key)
		}
		if _, err := s.Get(t.Context(), key, 0, -1); err == nil {
			t.Errorf("Get %.40q: want an error", key)
		}
		if _, err := s.Head(t.Context(), key); err == nil {
			t.Errorf("Head %.40q: want an error", key)
		}
	}
	if err := s.Put(t.Context(), "empty", nil); err == nil {
		t.Error("Put without a body: want an error")
	}
	if got := list(t, s, "", ""); len(got) != 0 {
		t.Errorf("refused objects are there: %q", got)
	}
}

func testHead(t *testing.T, s objstore.Store) {
	body := randomBytes(2, 12_345)
	put(t, s, "h/1", body)
	info, err := s.Head(t.Context(), "h/1")
	if err != nil {
		t.Fatalf("Head: %v", err)
	}
	if info.Key != "h/1" || info.Size != int64(len(body)) || info.ModTime.IsZero() {
		t.Errorf("Head: got %+v", info)
	}
	if info.CRC32C != "" && info.CRC32C != objstore.CRC32C(body) {
		t.Errorf("Head: got CRC32C %s, want %s", info.CRC32C, objstore.CRC32C(body))
	}
}

func testListOrder(t *testing.T, s objstore.Store) {
	// A folder's name sorts with the slash behind it: "a-b" < "a/b" < "a0".
	keys := []string{"a/b", "a-b", "a0", "a/c/d", "a/c-d", "B", "b", "a.b/c", "a/c0"}
	for i, key := range keys {
		put(t, s, key, make([]byte, i+1))
	}
	sizes := make(map[string]int64)
	var got []string
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		got = append(got, info.Key)
		sizes[info.Key] = info.Size
		if info.ModTime.IsZero() {
			t.Errorf("List: %s has no time", info.Key)
		}
	}
	if want := slices.Sorted(slices.Values(keys)); !slices.Equal(got, want) {
		t.Errorf("List: got %q, want %q", got, want)
	}
	for i, key := range keys {
		if sizes[key] != int64(i+1) {
			t.Errorf("List: %s has size %d, want %d", key, sizes[key], i+1)
		}
	}
}

func testListPrefixAndAfter(t *testing.T, s objstore.Store) {
	keys := []string{"a", "segments/00/a", "segments/00/b", "segments/01/a", "segments/ff/z", "segmentsx", "z/a"}
	for _, key := range keys {
		put(t, s, key, []byte("x"))
	}
	for _, prefix := range []string{"", "segments", "segments/", "segments/0", "segments/00/", "segments/00/b", "none", "z/a/b"} {
		for _, after := range append([]string{"", "segments/", "segments/00", "segments/00/", "segments/00/aa", "segments/zz", "zzz"}, keys...) {
			var want []string
			for _, key := range keys {
				if strings.HasPrefix(key, prefix) && key > after {
					want = append(want, key)
				}
			}
			if got := list(t, s, prefix, after); !slices.Equal(got, want) {
				t.Errorf("List %q after %q: got %q, want %q", prefix, after, got, want)
			}
		}
	}
	n := 0
	for range s.List(t.Context(), "", "") {
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Errorf("a List that was left yielded %d, want 2", n)
	}
}

// manyKeys is more than two pages of S3's 1,000 keys.
const manyKeys = 2_150

// putMany puts many small objects and returns their keys in order.
func putMany(t *testing.T, s objstore.Store) []string {
	t.Helper()
	keys := make([]string, manyKeys)
	for i := range keys {
		keys[i] = fmt.Sprintf("many/%02x/%04d", i%7, i)
	}
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			for i := worker; i < len(keys); i += 16 {
				if err := s.Put(t.Context(), keys[i], []byte(keys[i])); err != nil {
					t.Errorf("Put: %v", err)
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(keys)
	return keys
}

func testListPages(t *testing.T, s objstore.Store) {
	keys := putMany(t, s)
	if got := list(t, s, "many/", ""); !slices.Equal(got, keys) {
		t.Errorf("List: got %d keys, want %d", len(got), len(keys))
	}
	if got := list(t, s, "", keys[1_049]); !slices.Equal(got, keys[1_050:]) {
		t.Errorf("List after key 1,050: got %d keys, want %d", len(got), len(keys)-1_050)
	}
}

func testDelete(t *testing.T, s objstore.Store) {
	put(t, s, "d/1", []byte("x"))
	put(t, s, "d/2", []byte("y"))
	if err := s.Delete(t.Context(), "d/1", "d/absent", "absent/absent"); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if err := s.Delete(t.Context()); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
	if err := s.Delete(t.Context(), "d"); err != nil {
		t.Errorf("Delete of a folder's name: %v", err)
	}
	if got := list(t, s, "", ""); !slices.Equal(got, []string{"d/2"}) {
		t.Errorf("left are %q, want d/2", got)
	}
	put(t, s, "d/1", []byte("again"))
	want(t, s, "d/1", []byte("again"))
}

func testDeleteMany(t *testing.T, s objstore.Store) {
	keys := putMany(t, s)
	put(t, s, "stays", []byte("x"))
	if err := s.Delete(t.Context(), keys...); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if got := list(t, s, "", ""); !slices.Equal(got, []string{"stays"}) {
		t.Errorf("left are %d keys, want one", len(got))
	}
}

func testBigObject(t *testing.T, s objstore.Store) {
	body := randomBytes(3, 16<<20+17)
	put(t, s, "big", body)
	want(t, s, "big", body)
	got, err := s.Get(t.Context(), "big", 8<<20-5, 4<<20)
	if err != nil || !bytes.Equal(got, body[8<<20-5:12<<20-5]) {
		t.Errorf("Get 4 MiB in the middle: got %d bytes, error %v", len(got), err)
	}
}

func testConcurrency(t *testing.T, s objstore.Store) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for round := range 8 {
				key, body := fmt.Sprintf("c/%d/%d", i, round), randomBytes(uint64(i*100+round), 4_096)
				if err := s.Put(t.Context(), key, body); err != nil {
					t.Errorf("Put %s: %v", key, err)
					return
				}
				if got, err := s.Get(t.Context(), key, 0, -1); err != nil || !bytes.Equal(got, body) {
					t.Errorf("Get %s right after Put: got %d bytes, error %v", key, len(got), err)
				}
				if round%2 == 0 {
					if err := s.Delete(t.Context(), key); err != nil {
						t.Errorf("Delete %s: %v", key, err)
					}
				}
			}
		})
	}
	wg.Wait()
	if got := list(t, s, "c/", ""); len(got) != 16*4 {
		t.Errorf("left are %d objects, want %d", len(got), 16*4)
	}
}

func testCancelledContext(t *testing.T, s objstore.Store) {
	put(t, s, "x", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, getErr := s.Get(ctx, "x", 0, -1)
	_, headErr := s.Head(ctx, "x")
	var listErr error
	for _, err := range s.List(ctx, "", "") {
		listErr = err
	}
	for what, err := range map[string]error{
		"Put": s.Put(ctx, "y", []byte("y")), "Get": getErr, "Head": headErr, "List": listErr,
		"Delete": s.Delete(ctx, "x"), "Check": s.Check(ctx),
	} {
		wantError(t, what, err, context.Canceled)
		if errors.Is(err, objstore.ErrUnavailable) {
			t.Errorf("%s: a cancelled call must not look retriable: %v", what, err)
		}
	}
	want(t, s, "x", []byte("x"))
}

func testCheck(t *testing.T, s objstore.Store) {
	for range 3 {
		if err := s.Check(t.Context()); err != nil {
			t.Fatalf("Check: %v", err)
		}
	}
	if got := list(t, s, "segments/", ""); len(got) != 0 {
		t.Errorf("Check left %q among the segments", got)
	}
}
