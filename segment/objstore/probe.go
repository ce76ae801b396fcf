package objstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// CheckFolder is where the keys of Probe lie, and nothing else.
const CheckFolder = "check"

const (
	// probeKey stays in the store, so that all probes but the very first find
	// it there and write nothing.
	probeKey = CheckFolder + "/probe"
	// absentKey is never written.
	absentKey = CheckFolder + "/absent"
)

var probeBody = []byte("StreamHouse writes this object to see whether it may, and leaves it here.\n")

// Probe does what Store.Check asks for, by the other methods of s. It makes
// three requests, and one more the first time. Drivers add what they know of
// the causes.
func Probe(ctx context.Context, s Store) error {
	err := s.Put(ctx, probeKey, probeBody)
	if err == nil {
		err = s.Put(ctx, probeKey, probeBody)
		if err == nil {
			return errors.New("it overwrites an object that it was told to create (If-None-Match is ignored): " +
				"use a store that has conditional writes, as without them two writers can destroy each other's data")
		}
	}
	if !errors.Is(err, ErrExists) {
		return fmt.Errorf("cannot write: %w", err)
	}
	body, err := s.Get(ctx, probeKey, 0, -1)
	if err != nil {
		return fmt.Errorf("cannot read: %w", err)
	}
	if !bytes.Equal(body, probeBody) {
		return fmt.Errorf("object %s is not what StreamHouse wrote there: give it a prefix of its own, or delete that object", probeKey)
	}
	if _, err := s.Head(ctx, absentKey); !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("cannot tell that an object is absent (on S3, grant s3:ListBucket): %w", err)
	}
	return nil
}
