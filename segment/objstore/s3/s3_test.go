package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/lifecycle"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/objstoretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openURL(t testing.TB, rawURL string) *Store {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	o, err := ParseURL(u)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	objstoretest.Run(t, func(t *testing.T) objstore.Store { return openURL(t, testdb.S3(t)) })
}

func TestConformanceWithSignedPayload(t *testing.T) {
	objstoretest.Run(t, func(t *testing.T) objstore.Store { return openURL(t, testdb.S3(t)+"&signed_payload=true") })
}

func TestHeadHasTheChecksum(t *testing.T) {
	s := openURL(t, testdb.S3(t))
	body := []byte("checksum")
	if err := s.Put(t.Context(), "k", body); err != nil {
		t.Fatal(err)
	}
	info, err := s.Head(t.Context(), "k")
	if err != nil || info.CRC32C != objstore.CRC32C(body) || info.ETag == "" {
		t.Errorf("Head: got %+v, error %v, want CRC32C %s and an ETag", info, err, objstore.CRC32C(body))
	}
}

// TestLostAnswerIsResolved loses a PUT, or only its answer, on the way to a
// real server. The policy around the driver makes the same success of both.
func TestLostAnswerIsResolved(t *testing.T) {
	for name, cut := range map[string]func(*testdb.Proxy) <-chan struct{}{
		"request": func(p *testdb.Proxy) <-chan struct{} { return p.CutNextRequest(testdb.HTTPRequests(http.MethodPut)) },
		"answer": func(p *testdb.Proxy) <-chan struct{} {
			return p.CutReplyTo(testdb.HTTPRequests(http.MethodPut), testdb.HTTPAnswers)
		},
	} {
		t.Run(name, func(t *testing.T) {
			rawURL := testdb.S3(t)
			direct := openURL(t, rawURL)
			proxy := testdb.NewProxy(t, rawURL)
			happened := cut(proxy)
			s := objstore.WithPolicy(openURL(t, proxy.URL()), objstore.DefaultPolicy())
			body := []byte("sent more than once")
			if err := s.Put(t.Context(), "k", body); err != nil {
				t.Errorf("Put: %v", err)
			}
			<-happened
			if got, err := direct.Get(t.Context(), "k", 0, -1); err != nil || !bytes.Equal(got, body) {
				t.Errorf("stored is %q, error %v", got, err)
			}
			if err := s.Put(t.Context(), "k", body); !errors.Is(err, objstore.ErrExists) {
				t.Errorf("Put again: got %v, want ErrExists", err)
			}
		})
	}
}

// damage changes a byte of each body that goes out, behind the checksum's back.
type damage struct{ http.RoundTripper }

func (d damage) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut {
		var body bytes.Buffer
		if _, err := body.ReadFrom(r.Body); err != nil {
			return nil, err
		}
		body.Bytes()[body.Len()/2] ^= 1
		r.Body = readCloser{&body}
	}
	return d.RoundTripper.RoundTrip(r)
}

type readCloser struct{ *bytes.Buffer }

func (readCloser) Close() error { return nil }

func TestDamagedUploadIsRefused(t *testing.T) {
	for _, option := range []string{"", "&signed_payload=true"} {
		t.Run("option"+option, func(t *testing.T) {
			s := openURL(t, testdb.S3(t)+option)
			sound := s.client
			damaging, err := newClient(s.options, damage{s.transport})
			if err != nil {
				t.Fatal(err)
			}
			s.client = damaging
			err = s.Put(t.Context(), "k", bytes.Repeat([]byte("abcd"), 1000))
			// A signature that does not match is all that a signed upload says.
			if err == nil || (option == "" && !errors.Is(err, objstore.ErrUnavailable)) {
				t.Errorf("Put of a body damaged on the way: got %v, want ErrUnavailable", err)
			}
			s.client = sound
			if _, err := s.Head(t.Context(), "k"); !errors.Is(err, objstore.ErrNotFound) {
				t.Errorf("Head after the refused Put: got %v, want ErrNotFound", err)
			}
		})
	}
}

// stub is a server whose answers are those of handle.
func stub(t *testing.T, handle http.HandlerFunc) *Store {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return openURL(t, "s3://bucket/p?access_key=AK&secret_key=hushhush&endpoint="+url.QueryEscape(server.URL))
}

func answer(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>stub says %s</Message></Error>", code, code)
	}
}

func TestErrorsHaveTheirMeaning(t *testing.T) {
	permanent := errors.New("permanent")
	for _, test := range []struct {
		status int
		code   string
		want   error
	}{
		{412, "PreconditionFailed", objstore.ErrExists},
		{409, "ConditionalRequestConflict", objstore.ErrUnavailable},
		{409, "OperationAborted", objstore.ErrUnavailable},
		{404, "NoSuchKey", objstore.ErrNotFound},
		{404, "NoSuchBucket", permanent},
		{416, "InvalidRange", objstore.ErrRange},
		{400, "BadDigest", objstore.ErrUnavailable},
		{400, "IncompleteBody", objstore.ErrUnavailable},
		{400, "RequestTimeout", objstore.ErrUnavailable},
		{400, "ExpiredToken", objstore.ErrUnavailable},
		{400, "InvalidArgument", permanent},
		{403, "AccessDenied", permanent},
		{403, "SignatureDoesNotMatch", permanent},
		{403, "RequestTimeTooSkewed", permanent},
		{429, "TooManyRequests", objstore.ErrUnavailable},
		{500, "InternalError", objstore.ErrUnavailable},
		{501, "NotImplemented", permanent},
		{502, "BadGateway", objstore.ErrUnavailable},
		{503, "SlowDown", objstore.ErrUnavailable},
	} {
		t.Run(strconv.Itoa(test.status)+test.code, func(t *testing.T) {
			var requests atomic.Int32
			s := stub(t, func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				answer(test.status, test.code)(w, r)
			})
			err := s.Put(t.Context(), "k", []byte("x"))
			if requests.Load() != 1 {
				t.Errorf("made %d requests, want one attempt", requests.Load())
			}
			for _, sentinel := range []error{objstore.ErrExists, objstore.ErrNotFound, objstore.ErrRange, objstore.ErrUnavailable} {
				if is := errors.Is(err, sentinel); is != (test.want == sentinel) {
					t.Errorf("error %v: errors.Is %v = %t", err, sentinel, is)
				}
			}
			if err == nil || strings.Contains(err.Error(), "hushhush") {
				t.Errorf("got error %v", err)
			}
		})
	}
}

func TestTruncatedAnswerIsUnavailable(t *testing.T) {
	s := stub(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.Header().Set("Last-Modified", time.Unix(0, 0).UTC().Format(http.TimeFormat))
		_, _ = w.Write(make([]byte, 500))
		panic(http.ErrAbortHandler)
	})
	for _, length := range []int64{-1, 1000} {
		if _, err := s.Get(t.Context(), "k", 0, length); !errors.Is(err, objstore.ErrUnavailable) {
			t.Errorf("Get with length %d: got %v, want ErrUnavailable", length, err)
		}
	}
}

func TestServerWithoutRangesIsFoundOut(t *testing.T) {
	s := stub(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Last-Modified", time.Unix(0, 0).UTC().Format(http.TimeFormat))
		_, _ = w.Write(make([]byte, 500))
	})
	if data, err := s.Get(t.Context(), "k", 10, 20); err == nil {
		t.Errorf("Get of 20 bytes returned %d", len(data))
	}
}

func TestDeleteNamesTheKeysThatFailed(t *testing.T) {
	s := stub(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `<DeleteResult><Deleted><Key>p/a</Key></Deleted>`+
			`<Error><Key>p/b</Key><Code>AccessDenied</Code><Message>no</Message></Error>`+
			`<Error><Key>p/c</Key><Code>InternalError</Code><Message>oops</Message></Error></DeleteResult>`)
	})
	err := s.Delete(t.Context(), "a", "b", "c", "d")
	var failed []string
	for _, e := range objstore.KeyErrors(err) {
		failed = append(failed, e.Key)
	}
	if fmt.Sprint(failed) != "[b c d]" {
		t.Errorf("failed are %v, want b, c, and d which the store did not name: %v", failed, err)
	}
}

func TestCheckSaysWhatToDo(t *testing.T) {
	refused := httptest.NewServer(http.NotFoundHandler())
	refused.Close()
	for name, test := range map[string]struct {
		handle http.HandlerFunc
		want   string
	}{
		"no bucket":      {answer(404, "NoSuchBucket"), "create the bucket bucket"},
		"denied":         {answer(403, "AccessDenied"), "s3:PutObject"},
		"wrong secret":   {answer(403, "SignatureDoesNotMatch"), "the credentials are wrong"},
		"clock":          {answer(403, "RequestTimeTooSkewed"), "synchronise"},
		"region":         {answer(400, "AuthorizationHeaderMalformed"), "correct region"},
		"unconditional":  {func(http.ResponseWriter, *http.Request) {}, "If-None-Match is ignored"},
		"not there":      {nil, "nothing answers at " + refused.URL},
		"not known here": {answer(501, "NotImplemented"), "signed_payload=true"},
	} {
		t.Run(name, func(t *testing.T) {
			var s *Store
			if test.handle == nil {
				s = openURL(t, "s3://bucket?access_key=AK&secret_key=hushhush&endpoint="+refused.URL)
			} else {
				s = stub(t, test.handle)
			}
			err := s.Check(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hushhush") {
				t.Errorf("got %v, want advice with %q and no secret", err, test.want)
			}
			if test.handle == nil && !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("the cause is lost in %v", err)
			}
		})
	}
}

func TestLifecycleRulesThatDeleteTheLog(t *testing.T) {
	days := lifecycle.Expiration{Days: 7}
	for name, test := range map[string]struct {
		rule lifecycle.Rule
		want bool
	}{
		"whole bucket":    {lifecycle.Rule{Status: "Enabled", Expiration: days}, true},
		"our prefix":      {lifecycle.Rule{Status: "Enabled", Expiration: days, Prefix: "p/"}, true},
		"above":           {lifecycle.Rule{Status: "Enabled", Expiration: days, RuleFilter: lifecycle.Filter{Prefix: "p"}}, true},
		"below":           {lifecycle.Rule{Status: "Enabled", Expiration: days, RuleFilter: lifecycle.Filter{Prefix: "p/segments/00"}}, true},
		"elsewhere":       {lifecycle.Rule{Status: "Enabled", Expiration: days, RuleFilter: lifecycle.Filter{Prefix: "logs/"}}, false},
		"disabled":        {lifecycle.Rule{Status: "Disabled", Expiration: days}, false},
		"no expiration":   {lifecycle.Rule{Status: "Enabled"}, false},
		"only tagged":     {lifecycle.Rule{Status: "Enabled", Expiration: days, RuleFilter: lifecycle.Filter{Tag: lifecycle.Tag{Key: "k", Value: "v"}}}, false},
		"and with prefix": {lifecycle.Rule{Status: "Enabled", Expiration: days, RuleFilter: lifecycle.Filter{And: lifecycle.And{Prefix: "p/"}}}, true},
	} {
		s := &Store{options: Options{prefix: "p/"}}
		if got := s.expiredBy(&test.rule); got != test.want {
			t.Errorf("%s: got %t, want %t", name, got, test.want)
		}
	}
}

func TestParseURL(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "eu-central-1")
	for rawURL, want := range map[string]string{
		"s3://bkt":                      "s3://bkt/ at https://s3.amazonaws.com",
		"s3://bkt/":                     "s3://bkt/ at https://s3.amazonaws.com",
		"s3://bkt/p/q/?region=x":        "s3://bkt/p/q/ at https://s3.amazonaws.com",
		"s3://bkt?endpoint=http://h:1/": "s3://bkt/ at http://h:1",
		"s3://bkt?access_key=a&secret_key=hushhush": "s3://bkt/ at https://s3.amazonaws.com",
		"s3://bkt?path_style=true&signed_payload=1": "s3://bkt/ at https://s3.amazonaws.com",
		"s3://":                           "error: must be like",
		"s3:///b":                         "error: must be like",
		"s3://b":                          "error: bucket \"b\": Bucket name cannot be shorter",
		"s3://hushhush:hushhush@bkt":      "error: must be like",
		"s3://bkt/.x":                     "error: begins with a dot",
		"s3://bkt/../x":                   "error: relative path",
		"s3://bkt?nonsense=hushhush":      "error: parameter nonsense: there is no such",
		"s3://bkt?endpoint=h:1":           "error: parameter endpoint: must be like",
		"s3://bkt?path_style=perhaps":     "error: parameter path_style",
		"s3://bkt?secret_key=hushhush":    "error: go together",
		"s3://bkt?secret_key=%zzhushhush": "error: malformed",
	} {
		u, err := url.Parse(rawURL)
		if err != nil {
			t.Fatal(err)
		}
		o, err := ParseURL(u)
		got := o.String()
		if err != nil {
			got = "error: " + err.Error()
		}
		if part, isError := strings.CutPrefix(want, "error: "); (isError && !(err != nil && strings.Contains(got, part))) || (!isError && got != want) {
			t.Errorf("%s: got %s, want %s", rawURL, got, want)
		}
		if strings.Contains(got, "hushhush") || strings.Contains(fmt.Sprintf("%v %+v", o, o), "hushhush") {
			t.Errorf("%s: a secret is in %s, or in %+v", rawURL, got, o)
		}
		if err == nil && o.region != "eu-central-1" && o.region != "x" {
			t.Errorf("%s: got region %s", rawURL, o.region)
		}
	}
}

// TestCancelledPutReturns holds a PUT at a server that never answers.
func TestCancelledPutReturns(t *testing.T) {
	reached, release := make(chan struct{}, 1), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		reached <- struct{}{}
		<-release
	}))
	defer server.Close()
	defer close(release)
	s := openURL(t, "s3://bucket?access_key=AK&secret_key=SK&endpoint="+server.URL)
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Put(ctx, "k", []byte("x")) }()
	<-reached
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("got %v, want context.Canceled alone", err)
	}
}

// BenchmarkPut shows what a PUT costs this process, apart from the server: see
// cpu-ns/MiB, which takes the whole process's CPU time.
func BenchmarkPut(b *testing.B) {
	for _, option := range []string{"crc32c", "signed_payload=true"} {
		for _, size := range []int{16 << 10, 1 << 20, 8 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", option, size>>10), func(b *testing.B) {
				rawURL := testdb.S3(b)
				if option != "crc32c" {
					rawURL += "&" + option
				}
				s := openURL(b, rawURL)
				body := make([]byte, size)
				_, _ = rand.Read(body) // it has no errors
				b.SetBytes(int64(size))
				b.ReportAllocs()
				i := 0
				before := cpuTime(b)
				for b.Loop() {
					if err := s.Put(b.Context(), fmt.Sprintf("%02x/%d", i%256, i), body); err != nil {
						b.Fatal(err)
					}
					i++
				}
				b.ReportMetric(float64(cpuTime(b)-before)/(float64(b.N)*float64(size)/(1<<20)), "cpu-ns/MiB")
			})
		}
	}
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
