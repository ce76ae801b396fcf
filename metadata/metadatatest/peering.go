package metadatatest

import (
	"bytes"

	"github.com/streamhouse/streamhouse/metadata"
)

var peeringTests = []test{
	{"all who ask get one secret, also those who ask first at once", func(e *env) {
		const agents = 8
		var secrets [agents][]byte
		e.together(agents, func(n int) (err error) {
			secrets[n], err = e.store.PeerSecret(e.ctx)
			return err
		})
		for _, s := range secrets {
			if len(s) != metadata.PeerSecretBytes || !bytes.Equal(s, secrets[0]) || bytes.Equal(s, make([]byte, len(s))) {
				e.Fatalf("secrets %x and %x", secrets[0], s)
			}
		}
		e.equal("secret", must(e.store.PeerSecret(e.ctx))(e), secrets[0])
	}},
}
