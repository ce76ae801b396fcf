package segment

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// ID names a segment. It is a UUIDv7, so that IDs made later sort later, give or
// take the clocks of their agents.
type ID = uuid.UUID

// NewID returns an ID that was never returned before, by any agent. It is safe
// for concurrent use.
func NewID() ID {
	// NewV7 fails only if the system's random source does, and crypto/rand
	// ends the process before it reports that.
	return uuid.Must(uuid.NewV7())
}

const (
	// KeyPrefix is the folder under which all segments lie, and which nothing
	// else shares: what is found there and is not referenced is an orphan.
	KeyPrefix = "segments/"
	keySuffix = ".seg"
)

// ObjectKey returns the name of a segment's object, relative to the store's own
// prefix: "segments/<2 hex digits>/<uuid>.seg".
//
// The two digits are the ID's last byte, which is random. They spread the
// objects over 256 prefixes, since object stores scale by prefix and the ID
// itself begins with the time.
func ObjectKey(id ID) string {
	return KeyPrefix + hex.EncodeToString(id[len(id)-1:]) + "/" + id.String() + keySuffix
}

// ParseKey returns the ID in a key made by ObjectKey. It accepts exactly those.
func ParseKey(key string) (ID, error) {
	base := key[strings.LastIndexByte(key, '/')+1:]
	id, err := uuid.Parse(strings.TrimSuffix(base, keySuffix))
	if err != nil || key != ObjectKey(id) {
		return ID{}, fmt.Errorf("segment: %q is not the key of a segment", key)
	}
	return id, nil
}
