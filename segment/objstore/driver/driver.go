// Package driver opens the object store that a URL names. It is the one place
// that knows all drivers.
package driver

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/dir"
	"github.com/streamhouse/streamhouse/segment/objstore/s3"
)

// Store is an open driver. Its String names the store, without secrets.
type Store interface {
	objstore.Store
	fmt.Stringer
	// Close releases connections and files. No call may be under way.
	Close() error
}

// Open opens the store at rawURL:
//
//	s3://bucket/prefix?...  see s3.ParseURL
//	file:///absolute/dir    see dir.Open
//	file://./relative/dir
//
// It makes no request to a bucket; Check does. Errors never quote the URL,
// which may hold a secret.
func Open(rawURL string) (Store, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("object store URL: is malformed: must begin with s3:// or file://, with special characters escaped as %XX")
	}
	switch u.Scheme {
	case "s3":
		o, err := s3.ParseURL(u)
		if err != nil {
			return nil, err
		}
		return opened(s3.Open(o))
	case "file":
		name, err := directory(u)
		if err != nil {
			return nil, err
		}
		return opened(dir.Open(name))
	}
	return nil, fmt.Errorf("object store URL: scheme %q is unknown: must be s3 or file", u.Scheme)
}

// opened turns a driver's nil into one of the interface's.
func opened[S Store](s S, err error) (Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// directory is the path of a file URL. What stands where a host would be is
// taken as the first element of a relative path only if it looks like one.
func directory(u *url.URL) (string, error) {
	relative := u.Host == "." || u.Host == ".."
	if (u.Host != "" && !relative) || (u.Host == "" && u.Path == "") || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", errors.New("object store URL: must be like file:///absolute/dir or file://./relative/dir")
	}
	return u.Host + u.Path, nil
}
