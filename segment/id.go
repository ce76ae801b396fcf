package segment

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// ID names a segment, or a part of one. It begins with the time of its making in
// ms, so that IDs made later sort later, give or take the clocks of their agents.
//
// What an agent uploads as one object may be committed in parts, each by the agent
// that leads the partitions in it and each under a name of its own. So an ID is a
// UUIDv8 with the bits of a UUIDv7, but for byte 14, which is the part's number: 0
// for the object itself and its first part. IDs of version 7, which older releases
// made, are those of whole objects.
type ID = uuid.UUID

// MaxParts is how many parts an object may have.
const MaxParts = 64

const (
	parted   = 8  // the version of IDs that name parts
	partByte = 14 // of such an ID
)

// NewID returns the ID of an object that was never returned before, by any agent.
// It is safe for concurrent use.
func NewID() ID {
	// NewV7 fails only if the system's random source does, and crypto/rand
	// ends the process before it reports that.
	id := uuid.Must(uuid.NewV7())
	id[6] = parted<<4 | id[6]&0x0f
	return Part(id, 0)
}

// Part returns the name of part n of an object, in [0, MaxParts). The object's ID
// must be one that NewID made.
func Part(object ID, n int) ID {
	object[partByte] = byte(n)
	return object
}

// PartOf returns the number of the part that the ID names.
func PartOf(id ID) int {
	if id.Version() != parted {
		return 0
	}
	return int(id[partByte])
}

// Object returns the ID of the object that the part is in.
func Object(id ID) ID {
	if id.Version() != parted {
		return id
	}
	return Part(id, 0)
}

const (
	// KeyPrefix is the folder under which all segments lie, and which nothing
	// else shares: what is found there and is not referenced is an orphan.
	KeyPrefix = "segments/"
	keySuffix = ".seg"
)

// ObjectKey returns the name of the object of a segment, or of one of its parts,
// relative to the store's own prefix: "segments/<2 hex digits>/<uuid>.seg".
//
// The two digits are the ID's last byte, which is random. They spread the
// objects over 256 prefixes, since object stores scale by prefix and the ID
// itself begins with the time.
func ObjectKey(id ID) string {
	id = Object(id)
	return KeyPrefix + hex.EncodeToString(id[len(id)-1:]) + "/" + id.String() + keySuffix
}

// ParseKey returns the object's ID in a key made by ObjectKey. It accepts exactly
// those.
func ParseKey(key string) (ID, error) {
	base := key[strings.LastIndexByte(key, '/')+1:]
	id, err := uuid.Parse(strings.TrimSuffix(base, keySuffix))
	if err != nil || key != ObjectKey(id) {
		return ID{}, fmt.Errorf("segment: %q is not the key of a segment", key)
	}
	return id, nil
}
