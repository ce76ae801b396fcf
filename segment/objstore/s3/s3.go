// Package s3 keeps objects in a bucket of S3, or of a store that speaks its
// protocol and honours If-None-Match on PUT.
//
// Each Put is a single request, since a multipart upload forgets the condition
// when it completes on many stores. It carries the CRC32C of its body, with
// which the store refuses what was truncated or damaged on the way.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/streamhouse/streamhouse/segment/objstore"
)

// MaxObjectSize is the largest body of a single PUT that S3 takes, in bytes.
const MaxObjectSize = 5 << 30

// checksumHeader is set here and not by minio-go, whose automatic checksum of a
// single PUT (v7.4.1, TrailingHeaders) is dropped without a word, and whose
// explicit one needs trailers, for the same CPU. It is not in lower case because
// minio-go refuses it so unless it may send trailers.
const checksumHeader = "X-Amz-Checksum-Crc32c"

// Store is a driver for one prefix of one bucket.
type Store struct {
	options   Options
	client    *minio.Core
	transport *http.Transport
}

var _ objstore.Store = (*Store)(nil)

// init takes out of minio-go the pause that it makes after an attempt that it
// would repeat, even when it has none left. It can be set for the whole process
// only, where nobody else lets it repeat anything.
func init() { minio.DefaultRetryUnit = 0 }

// Open returns the store that o names. It makes no request: Check does.
func Open(o Options) (*Store, error) {
	transport := newTransport()
	client, err := newClient(o, transport)
	if err != nil {
		return nil, err
	}
	return &Store{options: o, client: client, transport: transport}, nil
}

func newClient(o Options, transport http.RoundTripper) (*minio.Core, error) {
	client, err := minio.NewCore(o.host, &minio.Options{
		Creds:        o.credentials,
		Secure:       o.secure,
		Transport:    transport,
		Region:       o.region,
		BucketLookup: o.lookup,
		MaxRetries:   1, // that is none: WithPolicy retries
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o, err)
	}
	client.SetAppInfo("streamhouse", "")
	return client, nil
}

// newTransport has limits that only end what would hang for ever, buffers for
// large bodies, and idle connections enough for a burst of uploads and reads.
func newTransport() *http.Transport {
	const bufferSize = 64 << 10
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		IdleConnTimeout:       time.Minute,
		MaxIdleConns:          256,
		MaxIdleConnsPerHost:   256,
		ReadBufferSize:        bufferSize,
		WriteBufferSize:       bufferSize,
		DisableCompression:    true,
	}
}

// Close closes idle connections.
func (s *Store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// String names the store in logs, without credentials.
func (s *Store) String() string { return s.options.String() }

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, body []byte) error {
	if err := objstore.CheckPut(key, body); err != nil {
		return err
	}
	if len(body) > MaxObjectSize {
		return fmt.Errorf("put %s: %d bytes, S3 takes %d in one request", key, len(body), MaxObjectSize)
	}
	opts := minio.PutObjectOptions{DisableMultipart: true}
	if s.options.signedPayload {
		opts.SendContentMd5 = true
	} else {
		opts.DisableContentSha256 = true
		opts.UserMetadata = map[string]string{checksumHeader: objstore.CRC32C(body)}
	}
	opts.SetMatchETagExcept("*")
	_, err := s.client.Client.PutObject(ctx, s.options.bucket, s.options.prefix+key, bytes.NewReader(body), int64(len(body)), opts)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, classify(ctx, err))
	}
	return nil
}

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) ([]byte, error) {
	if err := objstore.CheckGet(key, offset, length); err != nil {
		return nil, err
	}
	data, err := s.get(ctx, key, offset, length)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, classify(ctx, err))
	}
	return data, nil
}

func (s *Store) get(ctx context.Context, key string, offset, length int64) ([]byte, error) {
	var opts minio.GetObjectOptions
	if offset > 0 || length > 0 {
		end := int64(0) // to SetRange, behind an offset: to the object's end
		if length > 0 {
			end = offset + length - 1
		}
		if err := opts.SetRange(offset, end); err != nil {
			return nil, err
		}
	}
	body, info, _, err := s.client.GetObject(ctx, s.options.bucket, s.options.prefix+key, opts)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	// S3 answers a range that reaches beyond the end with what there is.
	switch {
	case length > 0 && info.Size < length:
		return nil, fmt.Errorf("%w: %d bytes at %d, got %d", objstore.ErrRange, length, offset, info.Size)
	case length > 0 && info.Size > length, info.Size < 0, info.Size > MaxObjectSize:
		return nil, fmt.Errorf("asked for %d bytes at %d, the store sends %d: it does not know ranges", length, offset, info.Size)
	}
	data := make([]byte, info.Size)
	if _, err := io.ReadFull(body, data); err != nil {
		return nil, err
	}
	return data, nil
}

// Head implements objstore.Store.
func (s *Store) Head(ctx context.Context, key string) (objstore.Info, error) {
	if err := objstore.CheckKey(key); err != nil {
		return objstore.Info{}, err
	}
	o, err := s.client.StatObject(ctx, s.options.bucket, s.options.prefix+key, minio.StatObjectOptions{Checksum: true})
	if err != nil {
		return objstore.Info{}, fmt.Errorf("head %s: %w", key, classify(ctx, err))
	}
	info := s.describe(o)
	info.Key, info.CRC32C = key, o.ChecksumCRC32C
	return info, nil
}

func (s *Store) describe(o minio.ObjectInfo) objstore.Info {
	return objstore.Info{
		Key:     o.Key[min(len(s.options.prefix), len(o.Key)):],
		Size:    o.Size,
		ETag:    o.ETag,
		ModTime: o.LastModified,
	}
}

// List implements objstore.Store.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		noOwner := false
		opts := minio.ListObjectsOptions{Prefix: s.options.prefix + prefix, Recursive: true, FetchOwner: &noOwner}
		if after != "" {
			opts.StartAfter = s.options.prefix + after
		}
		for o := range s.client.ListObjectsIter(ctx, s.options.bucket, opts) {
			if o.Err != nil {
				yield(objstore.Info{}, fmt.Errorf("list %q: %w", prefix, classify(ctx, o.Err)))
				return
			}
			if !yield(s.describe(o), nil) {
				return
			}
		}
		// A context that ended makes minio-go stop, not fail.
		if err := ctx.Err(); err != nil {
			yield(objstore.Info{}, fmt.Errorf("list %q: %w", prefix, err))
		}
	}
}

// Delete implements objstore.Store. It makes a request for each 1,000 keys.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := objstore.CheckKey(key); err != nil {
			return fmt.Errorf("delete: %w", err)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	errs, err := s.delete(ctx, keys)
	if err != nil {
		return fmt.Errorf("delete: %w", classify(ctx, err))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

// errUnconfirmed is not a minio.ErrorResponse, so it is classified as an answer
// that did not come.
var errUnconfirmed = errors.New("the store did not confirm it")

// delete returns a KeyError for each key that the store did not confirm.
func (s *Store) delete(ctx context.Context, keys []string) ([]error, error) {
	prefix := s.options.prefix
	results, err := s.client.RemoveObjectsWithIter(ctx, s.options.bucket, func(yield func(minio.ObjectInfo) bool) {
		for _, key := range keys {
			if !yield(minio.ObjectInfo{Key: prefix + key}) {
				return
			}
		}
	}, minio.RemoveObjectsOptions{})
	if err != nil {
		return nil, err
	}
	outcomes := make(map[string]error, len(keys))
	for r := range results {
		outcomes[r.ObjectName] = r.Err
	}
	var errs []error
	for _, key := range keys {
		err, named := outcomes[prefix+key]
		switch {
		case !named:
			err = classify(ctx, errUnconfirmed)
		case err != nil:
			err = classify(ctx, err)
		}
		if err != nil && !errors.Is(err, objstore.ErrNotFound) {
			errs = append(errs, &objstore.KeyError{Key: key, Err: err})
		}
	}
	return errs, nil
}
