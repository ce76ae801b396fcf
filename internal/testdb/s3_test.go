package testdb

import (
	"bytes"
	"io"
	"net/url"
	"testing"

	"github.com/minio/minio-go/v7"
)

func TestS3PutIfAbsent(t *testing.T) {
	t.Parallel()
	bucket := openBucket(t, S3(t))
	if err := bucket.put("a", "first"); err != nil {
		t.Fatal(err)
	}
	err := bucket.put("a", "second")
	if status := minio.ToErrorResponse(err).StatusCode; status != 412 {
		t.Fatalf("second put of one name: status %d (%v), want 412", status, err)
	}
	if got := bucket.get("a"); got != "first" {
		t.Fatalf("object = %q, want %q", got, "first")
	}
}

func TestS3BucketIsRemovedWithItsTest(t *testing.T) {
	t.Parallel()
	var bucket *testBucket
	t.Run("owner", func(t *testing.T) {
		bucket = openBucket(t, S3(t))
		if err := bucket.put("a", "1"); err != nil {
			t.Fatal(err)
		}
	})
	if there, err := bucket.client.BucketExists(t.Context(), bucket.name); there || err != nil {
		t.Fatalf("bucket %s: exists %v, %v", bucket.name, there, err)
	}
}

func TestS3ServerComesBackWithItsObjects(t *testing.T) {
	t.Parallel()
	server := StartS3(t)
	bucket := openBucket(t, server.Bucket())
	if err := bucket.put("a", "1"); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	if err := bucket.put("b", "2"); err == nil {
		t.Fatal("a killed server answered")
	}
	server.Start()
	if got := bucket.get("a"); got != "1" {
		t.Fatalf("object after the kill = %q, want 1", got)
	}
	server.Restart()
	if err := bucket.put("b", "2"); err != nil {
		t.Fatalf("after a restart: %v", err)
	}
}

// testBucket is one bucket, by the URL that S3 returns.
type testBucket struct {
	t      *testing.T
	client *minio.Client
	name   string
}

func openBucket(t *testing.T, target string) *testBucket {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	client, err := s3Client(u.Query().Get("endpoint"))
	if err != nil {
		t.Fatal(err)
	}
	return &testBucket{t, client, u.Host}
}

func (b *testBucket) put(key, body string) error {
	opts := minio.PutObjectOptions{DisableMultipart: true}
	opts.SetMatchETagExcept("*")
	_, err := b.client.PutObject(b.t.Context(), b.name, key, bytes.NewReader([]byte(body)), int64(len(body)), opts)
	return err
}

func (b *testBucket) exists(key string) bool {
	b.t.Helper()
	_, err := b.client.StatObject(b.t.Context(), b.name, key, minio.StatObjectOptions{})
	if err != nil && minio.ToErrorResponse(err).StatusCode != 404 {
		b.t.Fatal(err)
	}
	return err == nil
}

func (b *testBucket) get(key string) string {
	b.t.Helper()
	object, err := b.client.GetObject(b.t.Context(), b.name, key, minio.GetObjectOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	defer object.Close()
	body, err := io.ReadAll(object)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(body)
}
