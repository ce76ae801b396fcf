package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/metadata"
)

// http2FrameBytes is the largest frame of HTTP/2 that is taken.
const http2FrameBytes = 1 << 20

// peer is one life of another agent, as this one calls it.
type peer struct {
	agent  metadata.Agent
	calls  *http.Transport
	blocks *http.Transport // has a connection of its own: small calls do not wait behind blocks
	conns  connections

	// Guarded by Client.mu.
	down    bool // it did not answer
	doubted bool // it is to be probed
	probing bool
	gone    time.Time // when it was seen to have left the view; zero if it is there
}

func (c *Client) newPeer(a metadata.Agent) *peer {
	p := &peer{agent: a}
	p.calls, p.blocks = c.transport(p), c.transport(p)
	return p
}

// transport makes HTTP/2 connections to a peer, one at a time.
func (c *Client) transport(p *peer) *http.Transport {
	counts := &meter{c.metrics, &c.cfg}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	return &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			raw, err := c.cfg.dial(ctx, address)
			if err != nil {
				return nil, err
			}
			counted := p.conns.add(raw, counts, maxConnections)
			if counted == nil {
				_ = raw.Close()
				return nil, errEnded
			}
			counted.attribute(p.agent.Zone)
			return counted, nil
		},
		TLSClientConfig:        tlsConfig(c.identity, c.metrics.strangers.Inc),
		TLSHandshakeTimeout:    dialTimeout,
		IdleConnTimeout:        idleTimeout,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaderBytes,
		Protocols:              &protocols,
		HTTP2: &http.HTTP2Config{
			MaxReadFrameSize: http2FrameBytes,
			SendPingTimeout:  quietUntilPing, PingTimeout: pingAnswerWithin, WriteByteTimeout: writeTimeout,
		},
	}
}

// end closes the peer's connections, and makes no more.
func (p *peer) end() {
	p.conns.end()
	p.calls.CloseIdleConnections()
	p.blocks.CloseIdleConnections()
}

// request is one call.
type request struct {
	kind   string
	method string
	path   string
	query  url.Values
	body   io.ReadCloser
	length int64 // of the body; -1: a stream
}

// refusal is a call that the other side did not begin, and will not.
type refusal string

func (r refusal) Error() string { return "the peer refused: " + string(r) }

// Is makes refusals metadata.ErrUnavailable.
func (refusal) Is(target error) bool { return target == metadata.ErrUnavailable }

// notBegun is metadata.ErrUnavailable of a call that was not sent, in words that do not
// blame the metadata store.
type notBegun struct{ error }

func (e notBegun) Unwrap() error      { return e.error }
func (notBegun) Is(target error) bool { return target == metadata.ErrUnavailable }

// failure is a call of the other side that ended with an error: it may have happened.
type failure string

func (f failure) Error() string { return "the peer failed: " + string(f) }

// send makes a call and returns its answer once that begins, which the caller closes.
// An error is metadata.ErrUnavailable if the call was not sent or was refused.
func (c *Client) send(ctx context.Context, p *peer, r request) (*http.Response, error) {
	var sent atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	// Without GetBody, and with a method that is not idempotent, net/http repeats
	// nothing of which a byte was sent.
	req := (&http.Request{
		Method: r.method, URL: &url.URL{Scheme: "https", Host: p.agent.PeerAddress, Path: r.path, RawQuery: r.query.Encode()},
		Header: make(http.Header), Body: r.body, ContentLength: r.length,
	}).WithContext(traced)
	setHeaders(req.Header, c.self, p.agent)
	if deadline, ok := ctx.Deadline(); ok {
		req.Header[timeoutHeader] = []string{strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10)}
	}
	transport := p.calls
	if r.kind == kindBlock {
		transport = p.blocks
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		if r.kind != kindPing { // who pings draws the conclusion, and must not have it pinged again at once
			c.judge(ctx, p, err)
		}
		if !sent.Load() {
			return nil, notBegun{err}
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	if reason := resp.Header.Get(refusedHeader); reason != "" {
		return nil, refusal(reason)
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorTextBytes)) // it is failing anyway
	return nil, failure(fmt.Sprintf("%s: %s", resp.Status, text))
}

// judge draws the conclusion from a call that broke off with an error of the
// connection: a peer that let its time pass may be slow, and is asked.
func (c *Client) judge(ctx context.Context, p *peer, err error) {
	switch {
	case errors.Is(ctx.Err(), context.Canceled) && !errors.Is(context.Cause(ctx), errSilent):
	case ctx.Err() != nil:
		c.doubt(p)
	default:
		c.lost(p, err)
	}
}

// result is how metrics name the end of a call.
func result(ctx context.Context, err error) string {
	switch {
	case err == nil:
		return resultOK
	case errors.Is(err, metadata.ErrUnavailable):
		return resultRefused
	case errors.Is(ctx.Err(), context.Canceled):
		return resultCanceled
	}
	return resultUnknown
}

// ping asks whether the peer is there.
func (c *Client) ping(ctx context.Context, p *peer) error {
	began := time.Now()
	resp, err := c.send(ctx, p, request{kind: kindPing, method: http.MethodGet, path: pingPath})
	if err == nil {
		err = resp.Body.Close()
	}
	c.metrics.called(kindPing, result(ctx, err), began)
	return err
}
