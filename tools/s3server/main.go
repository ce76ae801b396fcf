// Command s3server is the S3 server of the tests: versitygw with its POSIX
// backend over one directory. It is a module of its own, so that versitygw's
// dependencies stay out of the agent's.
//
// It never calls fsync, so nothing about durability can be shown with it. What
// it does show is S3's meaning: put-if-absent, ranges, listing, deletes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	address := flag.String("address", "127.0.0.1:7070", "host:port to listen on")
	dir := flag.String("dir", "", "folder that holds the buckets (must exist)")
	accessKey := flag.String("access-key", "streamhouse", "access key of the only account")
	secretKey := flag.String("secret-key", "streamhouse-secret", "secret key of the only account")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *address, *dir, *accessKey, *secretKey); err != nil {
		fmt.Fprintln(os.Stderr, "s3server:", err)
		os.Exit(1)
	}
}

// serve runs the gateway until ctx ends.
func serve(ctx context.Context, address, dir, accessKey, secretKey string) error {
	if dir == "" {
		return errors.New("-dir is missing: name the folder that holds the buckets")
	}
	buckets := filepath.Join(dir, "buckets")
	if err := os.MkdirAll(buckets, 0o755); err != nil {
		return err
	}
	// Requests are small and many: the default buffer of 1 MiB a request would
	// cost more than the request itself.
	opts := posix.PosixOpts{IOBufferSize: 64 << 10, Concurrency: 1000}
	attributes, err := attributeStore(dir, buckets, &opts)
	if err != nil {
		return err
	}
	backend, err := posix.New(buckets, attributes, opts)
	if err != nil {
		return fmt.Errorf("open %s: %w", buckets, err)
	}
	return embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
		RootUserAccess:    accessKey,
		RootUserSecret:    secretKey,
		Ports:             []string{address},
		MaxConnections:    4096,
		MaxRequests:       4096,
		MultipartMaxParts: 10000,
		KeepAlive:         true,
		Quiet:             true,
		HealthPath:        "/healthz",
	})
}

// attributeStore is where the gateway keeps an object's ETag and headers: in
// extended attributes if the file system has them, else in files beside it.
func attributeStore(dir, buckets string, opts *posix.PosixOpts) (meta.MetadataStorer, error) {
	if (meta.XattrMeta{}).Test(buckets) == nil {
		return meta.XattrMeta{}, nil
	}
	opts.SideCarDir = filepath.Join(dir, "attributes")
	if err := os.MkdirAll(opts.SideCarDir, 0o755); err != nil {
		return nil, err
	}
	return meta.NewSideCar(opts.SideCarDir)
}
