package driver

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/segment/objstore/dir"
	"github.com/streamhouse/streamhouse/segment/objstore/s3"
)

func TestOpenDirectory(t *testing.T) {
	absolute := t.TempDir()
	t.Chdir(t.TempDir())
	for rawURL, name := range map[string]string{
		"file://" + absolute:        absolute,
		"file://" + absolute + "/a": filepath.Join(absolute, "a"),
		"file://./relative/b":       "relative/b",
		"file://../c":               "../c",
	} {
		s, err := Open(rawURL)
		if err != nil {
			t.Errorf("Open %s: %v", rawURL, err)
			continue
		}
		if _, ok := s.(*dir.Store); !ok {
			t.Errorf("Open %s: got a %T", rawURL, s)
		}
		if err := s.Put(t.Context(), "k", []byte("x")); err != nil {
			t.Errorf("Put to %s: %v", rawURL, err)
		}
		if found, err := filepath.Glob(filepath.Join(name, "k")); err != nil || len(found) != 1 {
			t.Errorf("Open %s: the object is not in %s", rawURL, name)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close %s: %v", rawURL, err)
		}
	}
}

func TestOpenBucket(t *testing.T) {
	s, err := Open("s3://bucket/prefix?endpoint=http://127.0.0.1:1&access_key=AK&secret_key=hushhush")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, ok := s.(*s3.Store); !ok {
		t.Errorf("got a %T", s)
	}
	if got, want := s.String(), "s3://bucket/prefix/ at http://127.0.0.1:1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, rawURL := range []string{
		"", "/var/lib", "ftp://host/hushhush", "file://", "file://host/dir", "file:///dir?hushhush=1", "file://u:hushhush@/d",
		"s3://", "s3://b?secret_key=hushhush", "s3://b\x00?secret_key=hushhush", "s3://b:hushhush/%zz",
	} {
		s, err := Open(rawURL)
		if err == nil {
			t.Errorf("Open %q: got %s, want an error", rawURL, s)
			continue
		}
		if s != nil {
			t.Errorf("Open %q: got a store beside error %v", rawURL, err)
		}
		if !strings.HasPrefix(err.Error(), "object store URL: ") || strings.Contains(err.Error(), "hushhush") {
			t.Errorf("Open %q: got %v, want an error about the URL that does not quote it", rawURL, err)
		}
	}
}
