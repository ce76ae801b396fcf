package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Files are PEM files: a certificate with its chain, its key, and the authorities
// that sign the certificates of all agents.
type Files struct {
	Certificate, Key, Authorities string
}

// IsSet says whether there are any.
func (f Files) IsSet() bool { return f != Files{} }

// filesCheckedEvery is how often files are looked at, at most.
const filesCheckedEvery = time.Second

// filesIdentity is that of a certificate, read again when a file changes.
type filesIdentity struct {
	files Files
	log   *slog.Logger

	mu      sync.Mutex
	looked  time.Time // at the files
	stamp   [3]stamp  // of what was read, or tried to
	current *loadedFiles
}

// loadedFiles is what was read. Immutable.
type loadedFiles struct {
	own  *tls.Certificate
	pool *x509.CertPool
}

// stamp tells whether a file has changed.
type stamp struct {
	modified time.Time
	size     int64
}

// FromFiles returns the identity of who has a certificate by one of the authorities.
// Which names and uses a certificate has does not matter: an authority that signs for
// others than agents of this group would let them in. The files are read again when
// they change; files that can't be used are reported and leave those before in force.
func FromFiles(files Files, log *slog.Logger) (Identity, error) {
	if files.Certificate == "" || files.Key == "" || files.Authorities == "" {
		return nil, errors.New("certificate, key and authorities must be set together")
	}
	f := &filesIdentity{files: files, log: log}
	var err error
	if f.stamp, err = f.stat(); err != nil {
		return nil, err
	}
	if f.current, err = f.read(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *filesIdentity) stat() (stamps [3]stamp, err error) {
	for i, name := range []string{f.files.Certificate, f.files.Key, f.files.Authorities} {
		info, err := os.Stat(name)
		if err != nil {
			return stamps, err
		}
		stamps[i] = stamp{info.ModTime(), info.Size()}
	}
	return stamps, nil
}

func (f *filesIdentity) read() (*loadedFiles, error) {
	own, err := tls.LoadX509KeyPair(f.files.Certificate, f.files.Key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", f.files.Certificate, f.files.Key, err)
	}
	pem, err := os.ReadFile(f.files.Authorities)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in PEM format", f.files.Authorities)
	}
	return &loadedFiles{&own, pool}, nil
}

// load returns the files as they are, or as they were when they were last usable.
func (f *filesIdentity) load() *loadedFiles {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < filesCheckedEvery {
		return f.current
	}
	f.looked = time.Now()
	now, err := f.stat()
	if err == nil && now == f.stamp {
		return f.current
	}
	fresh := (*loadedFiles)(nil)
	if err == nil {
		fresh, err = f.read()
	}
	if err != nil {
		f.log.Warn("cannot read the peers' certificates again: those before remain in force", "error", err)
		return f.current
	}
	f.stamp, f.current = now, fresh
	return fresh
}

func (f *filesIdentity) certificate() (*tls.Certificate, error) { return f.load().own, nil }

func (f *filesIdentity) verify(c tls.ConnectionState) error {
	if len(c.PeerCertificates) == 0 {
		return errStranger
	}
	between := x509.NewCertPool()
	for _, cert := range c.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err := c.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: f.load().pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errStranger, err)
	}
	return nil
}
