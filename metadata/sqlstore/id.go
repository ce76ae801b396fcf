package sqlstore

import (
	"fmt"

	"github.com/google/uuid"
)

// ID scans an id of 16 bytes; NULL is the nil id.
type ID uuid.UUID

// Scan implements sql.Scanner, which pgx honours as well.
func (id *ID) Scan(src any) error {
	switch b := src.(type) {
	case nil:
		*id = ID{}
		return nil
	case []byte:
		if len(b) == len(id) {
			copy(id[:], b)
			return nil
		}
		return fmt.Errorf("id of %d bytes in the database", len(b))
	default:
		return fmt.Errorf("id of type %T in the database", src)
	}
}
