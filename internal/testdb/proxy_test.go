package testdb

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProxyForwardsBothWaysToTheEnd(t *testing.T) {
	t.Parallel()
	proxy := NewProxy(t, echoServer(t))
	conn := dialProxy(t, proxy)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = conn.Write(sent)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("echo of %d bytes: got %d, %v", len(sent), len(got), err)
	}
}

func TestProxyURLKeepsAllButTheAddress(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ url, before, after string }{
		{"127.0.0.1:9", "", ""},
		{"postgres://postgres@127.0.0.1:9/db?sslmode=disable", "postgres://postgres@", "/db?sslmode=disable"},
		{"s3://bucket/log?endpoint=http://127.0.0.1:9&region=r", "s3://bucket/log?endpoint=http://", "&region=r"},
	} {
		proxy := NewProxy(t, test.url)
		if proxy.target != "127.0.0.1:9" {
			t.Errorf("%s: target %s", test.url, proxy.target)
		}
		if got, want := proxy.URL(), test.before+proxy.Addr()+test.after; got != want {
			t.Errorf("URL = %s, want %s", got, want)
		}
	}
}

// TestProxyKeepsSourceAndWatches goes through a proxy that listens elsewhere, from another address.
func TestProxyKeepsSourceAndWatches(t *testing.T) {
	t.Parallel()
	const host, source = "127.0.77.1", "127.0.77.100"
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	var (
		mu   sync.Mutex
		seen [2]int // by Direction
	)
	proxy := NewProxyWith(t, server.Addr().String(), ProxyOptions{
		Listen: host + ":0", KeepSource: true,
		Watch: func(client net.Addr) func(Direction, []byte) {
			if got := client.(*net.TCPAddr).IP.String(); got != source {
				t.Errorf("a connection from %s, want %s", got, source)
			}
			return func(d Direction, chunk []byte) {
				mu.Lock()
				defer mu.Unlock()
				seen[d] += len(chunk)
			}
		},
	})
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	conn, err := dialer.Dial("tcp", proxy.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	served, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	if got := served.RemoteAddr().(*net.TCPAddr).IP.String(); got != source {
		t.Errorf("the server was dialed from %s, want %s", got, source)
	}
	for _, way := range []struct {
		from, to net.Conn
		text     string
	}{{conn, served, "question"}, {served, conn, "no"}} {
		if _, err := io.WriteString(way.from, way.text); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(way.to, make([]byte, len(way.text))); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if seen != [2]int{ToServer: len("question"), ToClient: len("no")} {
		t.Errorf("seen were %v bytes", seen)
	}
}

func TestProxyPauseHoldsOneDirection(t *testing.T) {
	t.Parallel()
	proxy := NewProxy(t, echoServer(t))
	conn := dialProxy(t, proxy)
	conn.roundTrip(t, "before")
	proxy.Pause(ToClient)
	conn.send(t, "held\n")
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if line, err := conn.in.ReadString('\n'); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a paused proxy let %q through (%v)", line, err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	proxy.Resume(ToClient)
	conn.expect(t, "held")
}

// TestProxyPauseHoldsTheEnd closes both ends of connections while nothing passes: the server learns of it afterwards.
func TestProxyPauseHoldsTheEnd(t *testing.T) {
	t.Parallel()
	for _, end := range []struct {
		name  string
		close func(testConn)
	}{
		{"closed", func(c testConn) { c.Close() }},
		{"reset", func(c testConn) { _ = c.SetLinger(0); c.Close() }},
	} {
		t.Run(end.name, func(t *testing.T) {
			t.Parallel()
			server, received := recordingServer(t)
			proxy := NewProxy(t, server)
			conn := dialProxy(t, proxy)
			conn.send(t, "before")
			proxy.Pause(ToServer)
			proxy.Pause(ToClient)
			end.close(conn)
			select {
			case got := <-received:
				t.Fatalf("through a paused proxy the server learned of the end, after %q", got)
			case <-time.After(50 * time.Millisecond):
			}
			proxy.Resume(ToServer)
			proxy.Resume(ToClient)
			<-received
		})
	}
}

func TestProxyDelayKeepsOrder(t *testing.T) {
	t.Parallel()
	proxy := NewProxy(t, echoServer(t))
	proxy.Delay(ToServer, time.Millisecond)
	conn := dialProxy(t, proxy)
	for _, word := range []string{"one", "two", "three"} {
		conn.send(t, word+"\n")
	}
	for _, word := range []string{"one", "two", "three"} {
		conn.expect(t, word)
	}
}

func TestProxyRefuseAndCloseAll(t *testing.T) {
	t.Parallel()
	proxy := NewProxy(t, echoServer(t))
	old := dialProxy(t, proxy)
	old.roundTrip(t, "hello")
	proxy.Refuse(true)
	expectRefusal(t, proxy)
	old.roundTrip(t, "still here")
	proxy.CloseAll()
	old.expectReset(t)
	proxy.Refuse(false)
	dialProxy(t, proxy).roundTrip(t, "back")
}

func TestProxyDropAfter(t *testing.T) {
	t.Parallel()
	server, received := recordingServer(t)
	proxy := NewProxy(t, server)
	conn := dialProxy(t, proxy)
	dropped := proxy.DropAfter(ToServer, 6)
	conn.send(t, "abcd")
	conn.send(t, "efgh")
	<-dropped
	conn.expectReset(t)
	if got := <-received; got != "abcdef" {
		t.Fatalf("server received %q, want the first 6 bytes", got)
	}
	dialProxy(t, proxy).send(t, "another connection")
}

func TestProxyCutReplyTo(t *testing.T) {
	t.Parallel()
	proxy := NewProxy(t, echoServer(t))
	is := func(word string) func([]byte) bool {
		return func(chunk []byte) bool { return bytes.Equal(chunk, []byte(word+"\n")) }
	}
	cut := proxy.CutReplyTo(is("lose me"), is("lose me"))
	conn := dialProxy(t, proxy)
	conn.roundTrip(t, "keep me")
	select {
	case <-cut:
		t.Fatal("cut the answer to another request")
	default:
	}
	conn.send(t, "lose me\n")
	<-cut
	conn.expectReset(t)
	dialProxy(t, proxy).roundTrip(t, "lose me") // once only
}

// The two ways in which a commit's outcome becomes unknown to its client.
func TestProxyLosesAPostgresCommit(t *testing.T) {
	t.Parallel()
	database := Postgres(t)
	direct := connect(t, database)
	mustExec(t, direct, "CREATE TABLE probe (n int)")
	const insert = "INSERT INTO probe VALUES ($1)"
	for _, test := range []struct {
		name string
		cut  func(*Proxy) <-chan struct{}
		want string
	}{
		{"before the server sees it", func(p *Proxy) <-chan struct{} { return p.CutNextRequest(PostgresExecutes) }, "0"},
		{"after it was applied", func(p *Proxy) <-chan struct{} { return p.CutReplyTo(PostgresExecutes, PostgresReady) }, "1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			proxy := NewProxy(t, database)
			conn := connect(t, proxy.URL())
			cut := test.cut(proxy)
			if _, err := conn.Exec(t.Context(), insert, 1); err == nil {
				t.Fatal("the client got an answer")
			}
			<-cut
			if got := queryString(t, direct, "SELECT count(*)::text FROM probe"); got != test.want {
				t.Fatalf("%s rows, want %s", got, test.want)
			}
		})
	}
}

func TestProxyLosesACommitOfASimpleQuery(t *testing.T) {
	t.Parallel()
	database := Postgres(t)
	direct := connect(t, database)
	mustExec(t, direct, "CREATE TABLE probe (n int)")
	proxy := NewProxy(t, database)
	conn := connect(t, proxy.URL())
	err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "INSERT INTO probe VALUES (1)"); err != nil {
			return err
		}
		proxy.CutReplyTo(PostgresExecutes, PostgresReady) // the next Execute is the COMMIT
		return nil
	})
	if err == nil {
		t.Fatal("the client got an answer to COMMIT")
	}
	if got := queryString(t, direct, "SELECT count(*)::text FROM probe"); got != "1" {
		t.Fatalf("%s rows, want the committed one", got)
	}
}

func TestProxyLosesAnUpload(t *testing.T) {
	t.Parallel()
	target := S3(t)
	direct := openBucket(t, target)
	for _, test := range []struct {
		name string
		cut  func(*Proxy) <-chan struct{}
		want bool
	}{
		{"unapplied", func(p *Proxy) <-chan struct{} { return p.CutNextRequest(HTTPRequests("PUT")) }, false},
		{"applied", func(p *Proxy) <-chan struct{} { return p.CutReplyTo(HTTPRequests("PUT"), HTTPAnswers) }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			proxy := NewProxy(t, target)
			bucket := openBucket(t, proxy.URL())
			cut := test.cut(proxy)
			if err := bucket.put(test.name, "body"); err == nil {
				t.Fatal("the client got an answer")
			}
			<-cut
			if got := direct.exists(test.name); got != test.want {
				t.Fatalf("object is there: %v, want %v", got, test.want)
			}
		})
	}
}

// echoServer returns the address of a server that sends back what it gets.
func echoServer(t *testing.T) string {
	return serve(t, func(conn net.Conn) { _, _ = io.Copy(conn, conn) })
}

// recordingServer tells what its first connection carried until its end.
func recordingServer(t *testing.T) (string, <-chan string) {
	received := make(chan string, 1)
	var first sync.Once
	return serve(t, func(conn net.Conn) {
		var got bytes.Buffer
		_, _ = io.Copy(&got, conn)
		first.Do(func() { received <- got.String() })
	}), received
}

func serve(t *testing.T, handle func(net.Conn)) string {
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
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		work.Wait()
	})
	return listener.Addr().String()
}

// testConn is a client's connection through a proxy.
type testConn struct {
	*net.TCPConn
	in *bufio.Reader
}

func dialProxy(t *testing.T, p *Proxy) testConn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return testConn{conn.(*net.TCPConn), bufio.NewReader(conn)}
}

func (c testConn) send(t *testing.T, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func (c testConn) expect(t *testing.T, line string) {
	t.Helper()
	if got, err := c.in.ReadString('\n'); got != line+"\n" {
		t.Fatalf("received %q, want %q (%v)", got, line, err)
	}
}

func (c testConn) roundTrip(t *testing.T, line string) {
	t.Helper()
	c.send(t, line+"\n")
	c.expect(t, line)
}

func (c testConn) expectReset(t *testing.T) {
	t.Helper()
	if b, err := c.in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("received %q, %v, want a reset", b, err)
	}
}

// expectRefusal connects, and is reset while it does or right after.
func expectRefusal(t *testing.T, p *Proxy) {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err == nil {
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("a new connection: %v, want a reset", err)
	}
}
