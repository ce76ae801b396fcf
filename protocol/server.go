package protocol

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// ServerConfig bounds what peers may take. A zero field means its default.
type ServerConfig struct {
	// MaxFrameBytes is the size of the largest request that is read, as
	// socket.request.max.bytes of Kafka. Larger ones close their connection.
	// Default 100 MiB.
	MaxFrameBytes int

	// MaxInFlightPerConn is how many requests of one connection may be begun and
	// not yet answered. The next one is not read until one was. Default 100.
	MaxInFlightPerConn int

	// MaxRequestMemory is how many bytes of requests, over all connections, may be
	// begun and not yet answered, with what they decode to and what their answers
	// name. Requests wait their turn, in order of arrival, before more of their
	// bodies is read; one at a time may exceed this, so that one always gets on. One
	// whose size is larger than this closes its connection. Requests of up to 8 KiB
	// have as much of their own, so that they never wait for large ones. Default
	// 512 MiB.
	MaxRequestMemory int64

	// MaxResponseMemory is how many bytes of responses, over all connections,
	// requests may reserve until they are written. Default 256 MiB.
	MaxResponseMemory int64

	// MaxConnections is how many connections may be open. A further one takes the
	// place of the one that has been idle for longest, once that is a second; if
	// requests of all are in flight it is closed. Default 10,000, and fewer if the
	// process may not have so many files open.
	MaxConnections int

	// IdleTimeout ends a connection on which nothing is asked and nothing is
	// awaited for so long, as connections.max.idle.ms. Default 10 minutes.
	IdleTimeout time.Duration

	// ReadTimeout ends a connection whose begun request does not get on by 256 KiB,
	// or to its end, in so long: it holds request memory. Default 30 seconds.
	ReadTimeout time.Duration

	// WriteTimeout ends a connection whose peer does not take 256 KiB of replies, or
	// their end, in so long. Default 30 seconds. Where others wait for the memory of
	// its requests, this and the ReadTimeout are two seconds.
	WriteTimeout time.Duration

	// Observe is told of every request that was answered, or needs no answer, with
	// the bytes of its frame and of its reply's, size fields included. It is called on
	// the connection's goroutines, so it must be quick. nil: nobody is told.
	Observe func(req *Request, in, out int)
}

func (c ServerConfig) withDefaults() ServerConfig {
	c.MaxFrameBytes = orDefault(c.MaxFrameBytes, 100<<20)
	c.MaxInFlightPerConn = orDefault(c.MaxInFlightPerConn, 100)
	c.MaxRequestMemory = orDefault(c.MaxRequestMemory, 512<<20)
	c.MaxResponseMemory = orDefault(c.MaxResponseMemory, 256<<20)
	c.MaxConnections = orDefault(c.MaxConnections, 10_000)
	c.IdleTimeout = orDefault(c.IdleTimeout, 10*time.Minute)
	c.ReadTimeout = orDefault(c.ReadTimeout, 30*time.Second)
	c.WriteTimeout = orDefault(c.WriteTimeout, 30*time.Second)
	return c
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// Server serves a Router on listeners. All listeners share its limits.
type Server struct {
	cfg     ServerConfig
	router  *Router
	metrics *Metrics
	apis    []apiMetrics // by key
	log     *slog.Logger

	memory    *memory // of requests in flight
	small     *memory // of those that fit into readBuffer
	responses budget  // bytes of their responses
	places    *places

	drain context.Context // ended by Shutdown: no more reading
	force context.Context // ended when Shutdown's time is over: no more anything

	startDrain context.CancelFunc
	startForce context.CancelFunc

	mu      sync.Mutex // orders Serve's Add before Shutdown's Wait
	serving sync.WaitGroup
}

var errShutdown = errors.New("the server shuts down")

// NewServer makes a server; see [Server.Serve].
func NewServer(cfg ServerConfig, router *Router, metrics *Metrics, log *slog.Logger) *Server {
	cfg = cfg.withDefaults()
	s := &Server{
		cfg: cfg, router: router, metrics: metrics, log: log,
		apis:   make([]apiMetrics, len(router.entries)),
		memory: newMemory(cfg.MaxRequestMemory, metrics.requestMemory.Add),
		small:  newMemory(cfg.MaxRequestMemory, metrics.requestMemory.Add),
		places: newPlaces(cfg.MaxConnections, maxDescriptors(), log),
	}
	s.responses.left.Store(cfg.MaxResponseMemory)
	for _, k := range router.supported {
		s.apis[k.ApiKey] = metrics.forAPI(k.ApiKey)
	}
	s.drain, s.startDrain = context.WithCancel(context.Background())
	s.force, s.startForce = context.WithCancel(context.Background())
	return s
}

// Serve accepts connections from l and serves them until Shutdown, which ends
// them in good order, or until ctx ends, which cuts them off. Then it returns nil;
// it returns an error if l fails. When it returns, l is closed and every goroutine
// of its connections has ended. Several listeners may be served at once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.drain.Err() != nil {
		s.mu.Unlock()
		return nil
	}
	s.serving.Add(1)
	s.mu.Unlock()
	defer s.serving.Done()

	base, cut := context.WithCancel(ctx)
	defer cut()
	defer context.AfterFunc(s.force, cut)()
	defer context.AfterFunc(s.drain, func() { l.Close() })()
	defer context.AfterFunc(base, func() { l.Close() })()

	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		nc, err := s.accept(base, l)
		if base.Err() != nil || s.drain.Err() != nil {
			if nc != nil {
				nc.Close()
			}
			return nil
		}
		if err != nil {
			cut()
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		s.metrics.accepted.Inc()
		if !s.take(base) {
			s.closed(nc, closing(closeTooMany, errTooMany))
			continue
		}
		conns.Go(func() {
			defer s.places.leave()
			s.serveConn(base, nc)
		})
	}
}

// accept waits for a connection. It waits out what passes by itself, such as a
// want of file descriptors.
func (s *Server) accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	const longest = time.Second
	for delay := 5 * time.Millisecond; ; delay = min(2*delay, longest) {
		nc, err := l.Accept()
		if !passes(err) {
			return nc, err
		}
		s.log.Warn("accepting connections fails, will try again", "err", err)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.drain.Done():
			return nil, errShutdown
		}
	}
}

// passes says whether an error of Accept is one that ends by itself.
func passes(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Shutdown stops accepting and reading, waits until all requests in flight were
// answered, and closes. If ctx ends first, it cuts off what is left and returns
// ctx's error. It returns when every Serve is about to.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.startDrain()
	s.mu.Unlock()
	defer s.startForce()
	stop := context.AfterFunc(ctx, s.startForce)
	s.serving.Wait()
	if !stop() {
		return ctx.Err()
	}
	return nil
}

// closed closes nc, counts it and logs why.
func (s *Server) closed(nc net.Conn, why *closeError) {
	nc.Close()
	s.metrics.closed[why.reason].Inc()
	s.log.Log(context.Background(), why.reason.level(), "connection closed",
		"peer", nc.RemoteAddr().String(), "reason", string(why.reason), "err", why.err)
}
