package rpc

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// MinSecretBytes is the least length of a secret.
const MinSecretBytes = 16

// errStranger says that the other side has proved to be none of this cluster and
// agent group.
var errStranger = errors.New("rpc: the other side does not have this cluster's secret or certificates")

// Identity is how an agent proves that it belongs to the cluster and agent group,
// and judges others. Safe for concurrent use.
type Identity interface {
	// certificate is what this side shows.
	certificate() (*tls.Certificate, error)
	// verify judges a connection whose other side has proved to have the key of its
	// certificate. errStranger if it is none of the cluster.
	verify(tls.ConnectionState) error
}

// secretIdentity is one key that all agents have who know the secret.
type secretIdentity struct {
	make func() (*tls.Certificate, error)
}

// FromSecret returns the identity of all who share the secret, of one cluster and one
// agent group. The cluster's id is asked for at the first handshake.
//
// The secret makes an ed25519 key by HKDF-SHA256 (RFC 5869). Each side shows a
// certificate of that key, and takes nobody who has another: there is no authority,
// no name and no time that could be wrong. Who has the key can speak for any agent
// of the group.
func FromSecret(secret []byte, agentGroup string, clusterID func() string) (Identity, error) {
	if len(secret) < MinSecretBytes {
		return nil, fmt.Errorf("the secret has %d bytes, at least %d are needed", len(secret), MinSecretBytes)
	}
	return &secretIdentity{sync.OnceValues(func() (*tls.Certificate, error) {
		return secretCertificate(secret, clusterID(), agentGroup)
	})}, nil
}

func secretCertificate(secret []byte, clusterID, agentGroup string) (*tls.Certificate, error) {
	info := appendText(appendText([]byte("streamhouse peer "), clusterID), agentGroup)
	seed, err := hkdf.Key(sha256.New, secret, nil, string(info), ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("derive the peers' key: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // no end (RFC 5280)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the peers' certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

func (s *secretIdentity) certificate() (*tls.Certificate, error) { return s.make() }

func (s *secretIdentity) verify(c tls.ConnectionState) error {
	own, err := s.make()
	if err != nil {
		return err
	}
	if len(c.PeerCertificates) == 0 {
		return errStranger
	}
	theirs, ok := c.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	ours := own.PrivateKey.(crypto.Signer).Public().(ed25519.PublicKey)
	if !ok || subtle.ConstantTimeCompare(theirs, ours) != 1 {
		return errStranger
	}
	return nil
}

// tlsConfig is what both sides have in common: TLS 1.3, HTTP/2, and a certificate
// of either side that the other judges. complain is told of a stranger.
func tlsConfig(id Identity, complain func()) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		ClientAuth: tls.RequireAnyClientCert,
		// The identity judges, on either side: not names of hosts, which come from the
		// metadata store and not from the operator.
		InsecureSkipVerify: true,
		VerifyConnection: func(c tls.ConnectionState) error {
			err := id.verify(c)
			if err != nil {
				complain()
			}
			return err
		},
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return id.certificate() },
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.certificate() },
	}
}
