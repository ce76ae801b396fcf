package metadata

import "context"

// PeerSecretBytes is the length of the secret that agents of a cluster share.
const PeerSecretBytes = 32

// Peering is what agents need to trust each other.
type Peering interface {
	// PeerSecret returns the secret of this cluster, PeerSecretBytes random bytes that
	// the first who asks has made. Whoever can read the metadata store is one of the
	// cluster.
	PeerSecret(ctx context.Context) ([]byte, error)
}
