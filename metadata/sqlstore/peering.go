package sqlstore

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/streamhouse/streamhouse/metadata"
)

// PeerSecret implements metadata.Peering.
func (s *Store) PeerSecret(ctx context.Context) ([]byte, error) {
	fresh := make([]byte, metadata.PeerSecretBytes)
	_, _ = rand.Read(fresh) // never fails
	var secret []byte
	err := s.write(ctx, "read the peers' secret",
		Stmt{SQL: `UPDATE cluster SET peer_secret = $1 WHERE peer_secret IS NULL`, Args: []any{fresh}},
		Stmt{SQL: `SELECT peer_secret FROM cluster`, Each: func(r Row) error { return r.Scan(&secret) }})
	if err == nil && len(secret) != metadata.PeerSecretBytes {
		err = fmt.Errorf("the peers' secret in the metadata store has %d bytes, not %d", len(secret), metadata.PeerSecretBytes)
	}
	return secret, err
}
