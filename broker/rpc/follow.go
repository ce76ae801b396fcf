package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// Follower is one stream's end at who follows. Its two methods are called
// concurrently, and each by one goroutine.
type Follower interface {
	// Wanted returns what is to be followed more, and less, than it has said before
	// in this stream, and what is closed when there is more to say. Keys beyond
	// MaxFollowed are not followed.
	Wanted() (add, drop []lease.Key, changed <-chan struct{})
	// Grown is told what has arrived, in the order of its sending, and within
	// LifeInterval of what came before: nothing at all is a sign of life. While it
	// runs, what arrives has to wait, and at length the sender.
	Grown(news []metadata.Growth)
}

// errSilent says that a stream broke its promise.
var errSilent = errors.New("rpc: the peer is silent")

// Follow hears from an agent of growth until ctx ends, and returns nil then. Any other
// end of the stream is an error.
func (c *Client) Follow(ctx context.Context, agentID string, f Follower) error {
	began := time.Now()
	err := c.follow(ctx, agentID, f)
	if ctx.Err() != nil {
		err = nil
	}
	c.metrics.called(kindFollow, result(ctx, err), began)
	if err != nil {
		return fmt.Errorf("follow agent %q: %w", agentID, err)
	}
	return nil
}

func (c *Client) follow(ctx context.Context, agentID string, f Follower) error {
	p, err := c.reach(agentID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	silence := time.AfterFunc(followTimeout, func() { cancel(errSilent) })
	defer silence.Stop()
	following := &following{client: c, peer: p, follower: f, follows: newFollows()}
	body, wishes := io.Pipe()
	var wishing sync.WaitGroup
	wishing.Go(func() { _ = wishes.CloseWithError(following.wish(ctx, wishes)) })
	defer wishing.Wait()
	defer body.Close()
	defer cancel(nil)

	resp, err := c.send(ctx, p, request{kind: kindFollow, method: http.MethodPost, path: followPath, body: body, length: -1})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	err = following.hear(resp.Body, silence)
	if errors.Is(err, io.EOF) && ctx.Err() == nil {
		return refusal("it has ended the stream")
	}
	if !errors.Is(err, errMalformed) {
		c.judge(ctx, p, err)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// following is the client's side of a stream.
type following struct {
	client   *Client
	peer     *peer
	follower Follower

	mu      sync.Mutex
	follows *follows
}

// wishesOfAMessage bounds the keys of one message, so that it is no larger than
// maxFrameBytes.
const wishesOfAMessage = 8 << 10

// wish sends what the follower wants until the stream ends.
func (s *following) wish(ctx context.Context, to io.Writer) error {
	var message, frame []byte
	for {
		add, drop, changed := s.follower.Wanted()
		for len(add)+len(drop) > 0 {
			without, with := min(len(drop), wishesOfAMessage), min(len(add), wishesOfAMessage)
			if without > 0 { // all of them first: what is dropped and added again is dropped
				with = 0
			}
			s.mu.Lock()
			message = s.follows.appendWants(message[:0], add[:with], drop[:without])
			s.mu.Unlock()
			add, drop = add[with:], drop[without:]
			frame = appendFrame(frame[:0], message)
			if _, err := to.Write(frame); err != nil {
				return err
			}
			s.client.metrics.carried("out", kindFollow, s.peer.agent.Zone, len(frame))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// hear tells the follower what arrives until the stream ends. The time of silence runs
// only while it listens.
func (s *following) hear(from io.Reader, silence *time.Timer) error {
	r := bufio.NewReader(from)
	coder := growthCoder{follows: s.follows}
	var message []byte
	for {
		var err error
		if message, err = readFrame(r, message); err != nil {
			return err
		}
		silence.Stop()
		s.client.metrics.carried("in", kindFollow, s.peer.agent.Zone, len(message))
		s.mu.Lock()
		news, err := coder.parseGrowth(message)
		s.mu.Unlock()
		if err != nil {
			return err
		}
		s.follower.Grown(news)
		silence.Reset(followTimeout)
	}
}
