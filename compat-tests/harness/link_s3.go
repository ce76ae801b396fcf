package harness

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// BucketLink is the way to an S3 server.
type BucketLink struct {
	Link
	failing  *atomic.Bool
	failures *atomic.Int64
	use      *objectUse
}

// newBucketLink makes a link to the server of a bucket, whose URL names it as its endpoint, and counts there what is
// asked of it.
func newBucketLink(t testing.TB, bucket string, use *objectUse) BucketLink {
	t.Helper()
	target, err := url.Parse(bucket)
	if err != nil {
		t.Fatal(err)
	}
	query := target.Query()
	endpoint, err := url.Parse(query.Get("endpoint"))
	if err != nil || endpoint.Host == "" {
		t.Fatalf("%s has no endpoint (%v)", bucket, err)
	}
	l := BucketLink{failing: new(atomic.Bool), failures: new(atomic.Int64), use: use}
	server := httptest.NewServer(l.forward(t, endpoint))
	t.Cleanup(server.Close)
	query.Set("endpoint", server.URL)
	target.RawQuery = query.Encode()
	l.Link = newLink(t, target.String()) // which is closed before the server that waits for its connections
	return l
}

// forward returns what stands before the S3 server and speaks HTTP.
func (l BucketLink) forward(t testing.TB, endpoint *url.URL) http.Handler {
	// Nothing of a request is changed: it is signed.
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(endpoint)
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(response *http.Response) error {
			l.use.saw(response)
			return l.fail(response)
		},
		// A server that is away is a connection that breaks, not an answer with a status.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
}

// FailUploads has uploads answered with an error after the server has stored them, or ends that.
func (l BucketLink) FailUploads(fail bool) { l.failing.Store(fail) }

// FailedUploads is how many uploads were stored and answered with an error so far.
func (l BucketLink) FailedUploads() int64 { return l.failures.Load() }

// Heal ends all faults, as that of Link does.
func (l BucketLink) Heal() {
	l.FailUploads(false)
	l.Link.Heal()
}

// fail makes the answer to an upload one of Amazon's for what went wrong on their side.
func (l BucketLink) fail(response *http.Response) error {
	if response.Request.Method != http.MethodPut || response.StatusCode != http.StatusOK || !l.failing.Load() {
		return nil
	}
	response.Body.Close()
	const body = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>InternalError</Code></Error>`
	response.StatusCode, response.Status = http.StatusInternalServerError, "500 Internal Server Error"
	response.Header = http.Header{"Content-Type": {"application/xml"}, "Content-Length": {strconv.Itoa(len(body))}}
	response.Body, response.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	l.failures.Add(1)
	return nil
}
