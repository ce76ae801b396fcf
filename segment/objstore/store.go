package objstore

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"iter"
	"strings"
	"time"
)

// Store keeps immutable objects under names.
//
// Names. A key is one that CheckKey accepts, and relative to the store's own
// prefix. No key may be a folder of another: with "a/b" there is no "a".
//
// Durability. What Put reported as stored survives the loss of the machine that
// stored it, as far as the store itself does. A Put that failed, or whose
// context ended, may still come to be stored, at any later time.
//
// Attempts. Each call is one attempt. A driver does not retry, and its own
// limits of time are only there so that nothing hangs for ever; when to give up
// is the context's affair, and when to try again is that of WithPolicy.
//
// Errors. Those that name a fact of their own are ErrNotFound, ErrExists and
// ErrRange. ErrUnavailable marks what may pass if tried again; all others are
// there to stay until somebody acts. When the context ended, the error is the
// context's and none of these. Errors never hold credentials.
//
// Concurrency. All methods may be called by many goroutines at once, and return
// soon after their context ends.
type Store interface {
	// Put stores body under key if there is no such object yet, and otherwise
	// fails with ErrExists and leaves that object as it is. Of several that
	// put one key at once, one succeeds. Readers see all of an object, or none
	// of it. The body has at least one byte, and must never be changed again:
	// an attempt that was given up may still be sending it.
	Put(ctx context.Context, key string, body []byte) error

	// Get returns length bytes of an object from offset on, and all that
	// follow if length is -1. It returns exactly these or fails: with
	// ErrNotFound if there is no object, with ErrRange if it ends before them.
	// The slice is the caller's.
	Get(ctx context.Context, key string, offset, length int64) ([]byte, error)

	// Head returns what is known of an object without its bytes, or
	// ErrNotFound.
	Head(ctx context.Context, key string) (Info, error)

	// List yields the objects whose keys begin with prefix and come after the
	// key after, in the order of their keys' bytes. An object that is there
	// all the time is yielded once; one that comes or goes meanwhile may be
	// missed. An error ends the sequence; to go on, list after the last key
	// that came.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]

	// Delete removes objects; one that is not there is no error. If some could
	// not be removed, the error joins one KeyError for each of these, see
	// KeyErrors. If it has none, nothing is known of any key.
	Delete(ctx context.Context, keys ...string) error

	// Check proves that the store can do what is asked of it: it is there, may
	// be written and read, and refuses to overwrite. It is for the start, and
	// for a readiness probe that found that real work fails: it makes a
	// handful of requests. The error is for an operator and says what to do.
	Check(ctx context.Context) error
}

// Info is what a store says about an object.
type Info struct {
	Key string
	// Size is in bytes.
	Size int64
	// ETag is the store's own mark of the content, opaque, "" if it has none.
	ETag string
	// CRC32C is the content's checksum as CRC32C spells it, "" where the store
	// does not keep one. Only Head fills it.
	CRC32C string
	// ModTime is when the object was stored, by the store's clock.
	ModTime time.Time
}

var (
	// ErrNotFound says that there is no such object.
	ErrNotFound = errors.New("object not found")
	// ErrExists says that there is such an object already.
	ErrExists = errors.New("object exists")
	// ErrRange says that the object has fewer bytes than were asked for.
	ErrRange = errors.New("range is beyond the object's end")
	// ErrUnavailable says that the store did not do what was asked, or did it
	// and could not say so, and may do it when asked again.
	ErrUnavailable = errors.New("object store unavailable")
)

// KeyError is the failure of one key among several.
type KeyError struct {
	Key string
	Err error
}

func (e *KeyError) Error() string { return fmt.Sprintf("%s: %v", e.Key, e.Err) }

func (e *KeyError) Unwrap() error { return e.Err }

// KeyErrors returns all KeyErrors in the tree of err.
func KeyErrors(err error) []*KeyError {
	switch e := err.(type) {
	case nil:
		return nil
	case *KeyError:
		return []*KeyError{e}
	case interface{ Unwrap() error }:
		return KeyErrors(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []*KeyError
		for _, one := range e.Unwrap() {
			all = append(all, KeyErrors(one)...)
		}
		return all
	}
	return nil
}

// MaxKeyLength is the length of the longest key in bytes. S3 allows 1024, of
// which the store's own prefix takes its part.
const MaxKeyLength = 512

// CheckKey checks that key can name an object in every store: it is a relative
// path of printable ASCII in which no element begins with a dot.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKeyLength || !fs.ValidPath(key) {
		return fmt.Errorf("object key %.80q: must be a relative path of 1 to %d bytes", key, MaxKeyLength)
	}
	for i := range len(key) {
		if c := key[i]; c <= ' ' || c > '~' || c == '\\' {
			return fmt.Errorf("object key %.80q: has a byte %#02x", key, c)
		}
	}
	if key[0] == '.' || strings.Contains(key, "/.") {
		return fmt.Errorf("object key %.80q: has an element that begins with a dot", key)
	}
	return nil
}

// CheckPut checks the arguments of Put, for drivers.
func CheckPut(key string, body []byte) error {
	if len(body) == 0 {
		return fmt.Errorf("object key %.80q: has an empty body", key)
	}
	return CheckKey(key)
}

// CheckGet checks the arguments of Get, for drivers.
func CheckGet(key string, offset, length int64) error {
	if offset < 0 || length < -1 || length == 0 {
		return fmt.Errorf("object key %.80q: %w: %d bytes at %d", key, ErrRange, length, offset)
	}
	return CheckKey(key)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC32C returns the checksum of body as S3 spells it: big-endian, in base64.
func CRC32C(body []byte) string {
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.Checksum(body, castagnoli))
	return base64.StdEncoding.EncodeToString(sum[:])
}
