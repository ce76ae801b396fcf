package testdb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3Variable names the environment variable that holds the endpoint of the test
// run's S3 server, such as http://127.0.0.1:9000. Its credentials are those of
// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
const S3Variable = "STREAMHOUSE_TEST_S3"

const (
	s3Region    = "us-east-1"
	s3AccessKey = "streamhouse"
	s3SecretKey = "streamhouse-secret"
)

// S3 returns the URL of a prefix in a new bucket for this test,
//
//	s3://bucket/prefix?endpoint=http://127.0.0.1:9000&path_style=true&region=us-east-1
//
// The bucket is emptied and removed when the test ends. Credentials are in the
// process's environment, under AWS's names. The server is shared and never
// calls fsync: nothing about durability can be shown with it.
func S3(t testing.TB) string {
	t.Helper()
	endpoint, err := sharedS3()
	if err != nil {
		t.Fatalf("testdb: %v", err)
	}
	target, client := newBucket(t, endpoint)
	t.Cleanup(func() {
		if err := removeBucket(client, target.Host); err != nil {
			t.Errorf("testdb: remove bucket %s: %v", target.Host, err)
		}
	})
	return target.String()
}

// S3Server is a private S3 server.
type S3Server struct{ *Server }

// StartS3 starts a private server for this test.
func StartS3(t testing.TB) *S3Server {
	t.Helper()
	p, address, err := newS3()
	if err != nil {
		t.Fatalf("testdb: %v", err)
	}
	return &S3Server{newServer(t, p, address)}
}

// Bucket returns the URL of a prefix in a new bucket on this server. It can be
// called while the server runs.
func (s *S3Server) Bucket() string {
	s.t.Helper()
	target, _ := newBucket(s.t, s3Endpoint(s.address))
	return target.String()
}

// sharedS3 is the endpoint of the server that tests of this process share.
var sharedS3 = sync.OnceValues(func() (string, error) {
	if given := os.Getenv(S3Variable); given != "" {
		return given, nil
	}
	p, address, err := newS3()
	keep(p)
	return s3Endpoint(address), err
})

// newS3 starts a server on an empty folder.
func newS3() (*process, string, error) {
	program, err := s3Program()
	if err != nil {
		return nil, "", err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	dir, err := newDir("s3", nil)
	if err != nil {
		return nil, "", err
	}
	accessKey, secretKey := s3Credentials()
	p := &process{
		name: "S3 server at " + address, dir: dir, stop: "TERM", abandon: "KILL",
		args:  []string{program, "-address", address, "-dir", dir, "-access-key", accessKey, "-secret-key", secretKey},
		ready: func(ctx context.Context) error { return s3Ready(ctx, address) },
	}
	if err := p.start(); err != nil {
		return nil, "", errors.Join(err, p.close())
	}
	return p, address, nil
}

// s3Ready asks tools/s3server's health page.
func s3Ready(ctx context.Context, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s3Endpoint(address)+"/healthz", nil)
	if err != nil {
		return err
	}
	request.Close = true // no idle connection is left for leak checks to find
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// s3Credentials are those of the environment. Where it has none, the tests' own
// are put there for the whole process, for object stores that look for them
// there. (T.Setenv would forbid parallel tests.)
var s3Credentials = sync.OnceValues(func() (accessKey, secretKey string) {
	if os.Getenv("AWS_ACCESS_KEY_ID") == "" || os.Getenv("AWS_SECRET_ACCESS_KEY") == "" {
		os.Setenv("AWS_ACCESS_KEY_ID", s3AccessKey)
		os.Setenv("AWS_SECRET_ACCESS_KEY", s3SecretKey)
	}
	return os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
})

func s3Endpoint(address string) string { return "http://" + address }

// s3Program is the path of the built tools/s3server. A cold build takes minutes;
// `make` does it first. Processes that find it missing at the same time build it
// once.
func s3Program() (string, error) {
	root, err := repositoryRoot()
	if err != nil {
		return "", err
	}
	program := filepath.Join(root, ".cache", "bin", "s3server")
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return "", err
	}
	lock, err := os.Create(program + ".lock")
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = filepath.Join(root, "tools", "s3server")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the S3 server: %w\n%s", err, out)
	}
	return program, nil
}

// repositoryRoot is the nearest folder above the test's that holds the tools.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "tools", "s3server", "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("the test does not run inside the repository: no tools/s3server above its folder")
}

// newBucket makes a bucket, and returns the URL of a prefix in it.
func newBucket(t testing.TB, endpoint string) (*url.URL, *minio.Client) {
	t.Helper()
	client, err := s3Client(endpoint)
	if err != nil {
		t.Fatalf("testdb: S3 client: %v", err)
	}
	bucket := uniqueName(t, "-")
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := client.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatalf("testdb: make bucket %s: %v", bucket, err)
	}
	query := url.Values{"endpoint": {endpoint}, "region": {s3Region}, "path_style": {"true"}}
	return &url.URL{Scheme: "s3", Host: bucket, Path: "/log", RawQuery: query.Encode()}, client
}

func s3Client(endpoint string) (*minio.Client, error) {
	server, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	accessKey, secretKey := s3Credentials()
	return minio.New(server.Host, &minio.Options{
		Creds:        credentials.NewStaticV4(accessKey, secretKey, ""),
		Secure:       server.Scheme == "https",
		Transport:    &http.Transport{DisableKeepAlives: true},
		Region:       s3Region,
		BucketLookup: minio.BucketLookupPath,
		MaxRetries:   1,
	})
}

// removeBucket removes a bucket and all that is in it.
func removeBucket(client *minio.Client, bucket string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	objects := client.ListObjects(ctx, bucket, minio.ListObjectsOptions{Recursive: true})
	var errs []error
	for failure := range client.RemoveObjects(ctx, bucket, objects, minio.RemoveObjectsOptions{}) {
		errs = append(errs, fmt.Errorf("remove %s: %w", failure.ObjectName, failure.Err))
	}
	return errors.Join(append(errs, client.RemoveBucket(ctx, bucket))...)
}
