package rpc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/metadata"
)

func TestStrangersAreRefused(t *testing.T) {
	identity := func(secret, group, cluster string) Identity {
		id, err := FromSecret([]byte(secret), group, func() string { return cluster })
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	own := identity("a secret of sixteen bytes", "group", "cluster")
	other := newAuthority(t)
	files, err := FromFiles(other.issue(t, "stranger"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for name, stranger := range map[string]Identity{
		"another secret":  identity("another secret of as many", "group", "cluster"),
		"another group":   identity("a secret of sixteen bytes", "grou", "cluster"),
		"another cluster": identity("a secret of sixteen bytes", "group", "cluster2"),
		"moved letters":   identity("a secret of sixteen bytes", "rgroup", "cluste"),
		"a certificate":   files,
	} {
		t.Run(name, func(t *testing.T) {
			v := newView()
			holder := start(t, options{view: v, id: "holder", identity: own, handlers: Handlers{Commit: committed}})
			caller := start(t, options{view: v, id: "caller", identity: stranger})
			friend := start(t, options{view: v, id: "friend", identity: identity("a secret of sixteen bytes", "group", "cluster")})
			if _, err := friend.Commit(t.Context(), commitOf("holder", 1)); err != nil {
				t.Errorf("a friend: %v", err)
			}
			for range 3 {
				_, err := caller.Commit(t.Context(), commitOf("holder", 1))
				if !errors.Is(err, metadata.ErrUnavailable) {
					t.Errorf("commit of a stranger: %v", err)
				}
			}
			if caller.Reachable("holder") {
				t.Error("who does not trust can be reached")
			}
			if caller.metric(t, "streamhouse_peer_strangers_total") == 0 {
				t.Error("the caller does not count strangers")
			}
			caller.stop()
			holder.stop()
			if lines := caller.log.all(); len(lines) != 1 {
				t.Errorf("the caller's log: %q", lines)
			}
			if lines := holder.log.all(); len(lines) > 1 {
				t.Errorf("the holder's log: %q", lines)
			}
		})
	}
}

// TestServerRefusesStrangers has a client that trusts everybody.
func TestServerRefusesStrangers(t *testing.T) {
	v := newView()
	holder := start(t, options{view: v, id: "holder", handlers: Handlers{Commit: committed}})
	strange, err := FromSecret([]byte("another secret of the test"), "", func() string { return "cluster" })
	if err != nil {
		t.Fatal(err)
	}
	caller := start(t, options{view: v, id: "caller", identity: credulous{strange}})
	for range 3 {
		if _, err := caller.Commit(t.Context(), commitOf("holder", 1)); err == nil {
			t.Error("a stranger has committed")
		}
	}
	caller.stop()
	holder.stop()
	if holder.metric(t, "streamhouse_peer_strangers_total") == 0 {
		t.Error("no stranger was counted")
	}
	if lines := holder.log.all(); len(lines) != 1 {
		t.Errorf("the holder's log: %q", lines)
	}
	if served := holder.metric(t, "streamhouse_peer_served_total"); served != 0 {
		t.Errorf("%g calls of strangers were answered", served)
	}
}

func TestShortSecret(t *testing.T) {
	if _, err := FromSecret(make([]byte, MinSecretBytes-1), "", nil); err == nil {
		t.Error("a short secret is taken")
	}
}

func TestCertificates(t *testing.T) {
	v, ca := newView(), newAuthority(t)
	party := func(name string, files Files) *party {
		id, err := FromFiles(files, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return start(t, options{view: v, id: name, identity: id, handlers: Handlers{Commit: committed}})
	}
	party("holder", ca.issue(t, "holder"))
	if _, err := party("caller", ca.issue(t, "caller")).Commit(t.Context(), commitOf("holder", 1)); err != nil {
		t.Errorf("commit by one with a certificate: %v", err)
	}
	other := newAuthority(t)
	if _, err := party("stranger", other.issue(t, "stranger")).Commit(t.Context(), commitOf("holder", 1)); err == nil {
		t.Error("one with a certificate of another authority has committed")
	}
	trusting := other.issue(t, "spy")
	trusting.Authorities = ca.file // so that only the server can object
	if _, err := party("spy", trusting).Commit(t.Context(), commitOf("holder", 1)); err == nil {
		t.Error("one that trusts and is not trusted has committed")
	}
	if _, err := FromFiles(Files{Certificate: "a", Key: "b"}, nil); err == nil {
		t.Error("two of three files are taken")
	}
}

func TestCertificatesAreReadAgain(t *testing.T) {
	ca := newAuthority(t)
	files := ca.issue(t, "agent")
	id, err := FromFiles(files, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	shown := func() []byte {
		id.(*filesIdentity).looked = time.Time{} // as if it were long ago
		c, err := id.certificate()
		if err != nil {
			t.Fatal(err)
		}
		return c.Certificate[0]
	}
	before := shown()
	next := ca.issue(t, "the same agent, later")
	for from, to := range map[string]string{next.Certificate: files.Certificate, next.Key: files.Key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	after := shown()
	if slices.Equal(before, after) {
		t.Error("the old certificate is shown")
	}
	if err := os.WriteFile(files.Key, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(shown(), after) {
		t.Error("a file that can't be read has changed what is shown")
	}
}

// credulous shows what is its own and takes anybody.
type credulous struct{ Identity }

func (credulous) verify(tls.ConnectionState) error { return nil }

// authority signs certificates in a folder of the test.
type authority struct {
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{file: filepath.Join(t.TempDir(), "ca.pem"), key: newKey(t)}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

func (a *authority) issue(t *testing.T, name string) Files {
	dir, key := t.TempDir(), newKey(t)
	files := Files{Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Authorities: a.file}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"no.such.host"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, files.Certificate, "CERTIFICATE", der)
	if der, err = x509.MarshalECPrivateKey(key); err != nil {
		t.Fatal(err)
	}
	writePEM(t, files.Key, "EC PRIVATE KEY", der)
	return files
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, name, kind string, der []byte) {
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
