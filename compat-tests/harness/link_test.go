package harness

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestLink goes through the faults of a link in front of a server that sends back what it gets.
func TestLink(t *testing.T) {
	link := newLink(t, echoServer(t))
	conn := dialLink(t, link)
	conn.demandEcho(t, "well")

	link.Cut()
	conn.send(t, "cut\n")
	conn.demandSilence(t)
	late := dialLink(t, link)
	late.send(t, "new\n")
	late.demandSilence(t)
	link.Heal()
	conn.demand(t, "cut")
	late.demand(t, "new")

	link.Delay(time.Millisecond)
	conn.demandEcho(t, "slow")
	link.Heal()

	link.Reset()
	conn.demandReset(t)
	if refused, err := net.Dial("tcp", link.Address()); err == nil { // else it was reset at once
		linkConn{refused, bufio.NewReader(refused)}.demandReset(t)
		refused.Close()
	}
	link.Heal()
	dialLink(t, link).demandEcho(t, "well again")
}

// TestBucketLinkFailsWhatIsStored uploads to a server that counts uploads.
func TestBucketLinkFailsWhatIsStored(t *testing.T) {
	var stored atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil && string(body) == "body" && r.Host == r.Header.Get("X-Host") {
			stored.Add(1)
		}
	}))
	t.Cleanup(server.Close)
	use := newObjectUse()
	link := newBucketLink(t, "s3://bucket/log?region=r&endpoint="+url.QueryEscape(server.URL), use)
	put := func() int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+link.Address()+"/bucket/log/x", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		request.Close = true
		request.Header.Set("X-Host", request.Host)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			t.Error(err)
		}
		return response.StatusCode
	}
	if status := put(); status != http.StatusOK {
		t.Errorf("without faults: status %d", status)
	}
	link.FailUploads(true)
	if status := put(); status != http.StatusInternalServerError {
		t.Errorf("while uploads fail: status %d", status)
	}
	link.Heal()
	if status := put(); status != http.StatusOK {
		t.Errorf("healed: status %d", status)
	}
	if stored.Load() != 3 || link.FailedUploads() != 1 {
		t.Errorf("%d uploads were stored, %d failed; want 3 and 1", stored.Load(), link.FailedUploads())
	}
	if got := use.read(); got != (ObjectUse{Puts: 3, PutBytes: 12}) {
		t.Errorf("counted %s", got)
	}
}

func echoServer(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		work.Wait()
	})
	return listener.Addr().String()
}

// linkConn is a client's connection over a link.
type linkConn struct {
	net.Conn
	in *bufio.Reader
}

func dialLink(t *testing.T, link Link) linkConn {
	t.Helper()
	conn, err := net.Dial("tcp", link.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return linkConn{conn, bufio.NewReader(conn)}
}

func (c linkConn) send(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(c, line); err != nil {
		t.Fatal(err)
	}
}

func (c linkConn) demand(t *testing.T, line string) {
	t.Helper()
	if got, err := c.in.ReadString('\n'); got != line+"\n" {
		t.Fatalf("got %q (%v), want %q", got, err, line)
	}
}

func (c linkConn) demandEcho(t *testing.T, line string) {
	t.Helper()
	c.send(t, line+"\n")
	c.demand(t, line)
}

func (c linkConn) demandSilence(t *testing.T) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if b, err := c.in.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %q (%v), want nothing", b, err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
}

func (c linkConn) demandReset(t *testing.T) {
	t.Helper()
	if b, err := c.in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %q (%v), want a reset", b, err)
	}
}
