package rpc

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/metadata"
)

// commit commits for another agent.
func (s *Server) commit(w answer, r *http.Request, from metadata.Agent) string {
	if r.ContentLength < 0 || r.ContentLength > maxCommitBytes {
		return w.refuse(refusedTooLarge)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout(r.Header, commitTimeout))
	defer cancel()
	err := http.NewResponseController(w.ResponseWriter).SetReadDeadline(time.Now().Add(writeTimeout))
	var body []byte
	if err == nil {
		body, err = io.ReadAll(r.Body) // of ContentLength; grows as bytes arrive
	}
	if err != nil {
		return w.refuse(refusedMalformed)
	}
	s.metrics.carried("in", kindCommit, from.Zone, len(body))
	c, err := parseCommit(body)
	if err != nil {
		return w.refuse(refusedMalformed)
	}
	if c.AgentID != s.self.ID {
		return w.refuse(refusedMistaken)
	}
	results, err := s.handlers.Commit(ctx, from, c)
	switch {
	case err != nil && isDefinite(err):
		return w.refuse(refusedHandler)
	case err != nil:
		return w.fail(err)
	}
	encoded := appendResults(nil, results)
	s.metrics.carried("out", kindCommit, from.Zone, len(encoded))
	return w.reply(encoded)
}

// block answers with bytes of an object.
func (s *Server) block(w answer, r *http.Request, peer metadata.Agent) string {
	object, err := uuid.Parse(r.PathValue("id"))
	q := r.URL.Query()
	var numbers [3]int64
	for i, name := range []string{"size", "from", "to"} {
		if err == nil {
			numbers[i], err = strconv.ParseInt(q.Get(name), 10, 64)
		}
	}
	size, from, to := numbers[0], numbers[1], numbers[2]
	if err != nil || from < 0 || to <= from || to > size || to-from > MaxBlockBytes {
		return w.refuse(refusedMalformed)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout(r.Header, blockTimeout))
	defer cancel()
	b, err := s.handlers.Block(ctx, object, size, from, to)
	if err == nil && int64(len(b)) != to-from {
		err = errors.New("rpc: a block of another length than was asked for")
	}
	if err != nil {
		return w.fail(err)
	}
	s.metrics.carried("out", kindBlock, peer.Zone, len(b))
	return w.reply(b)
}

// follow tells another agent of growth until either side ends.
func (s *Server) follow(w answer, r *http.Request, from metadata.Agent) string {
	ctx, cancel := context.WithCancel(r.Context())
	st := &stream{
		server: s, from: from, feed: s.handlers.Feed(from), follows: newFollows(),
		w: w, control: http.NewResponseController(w.ResponseWriter),
	}
	defer st.feed.Close()
	var reading sync.WaitGroup
	reading.Go(func() {
		defer cancel()
		if err := st.listen(r.Body); ctx.Err() == nil {
			s.log.Debug("a peer's stream of wishes has ended", "peer", from.ID, "error", err)
		}
	})
	err := st.tell(ctx)
	cancel()
	_ = r.Body.Close() // which ends listen
	reading.Wait()
	if err != nil {
		s.log.Debug("a peer is not told of growth any more", "peer", from.ID, "error", err)
		return resultUnknown
	}
	return resultOK
}

// stream is the server's side of a stream.
type stream struct {
	server  *Server
	from    metadata.Agent
	feed    Feed
	w       answer
	control *http.ResponseController

	mu      sync.Mutex
	follows *follows
}

// listen takes wishes from the stream until that ends, and returns why it did.
func (st *stream) listen(body io.Reader) error {
	r := bufio.NewReader(body)
	var buf []byte
	for {
		var err error
		if buf, err = readFrame(r, buf); err != nil {
			return err
		}
		st.server.metrics.carried("in", kindFollow, st.from.Zone, len(buf))
		st.mu.Lock()
		add, drop, err := st.follows.parseWants(buf)
		st.mu.Unlock()
		if err != nil {
			return err
		}
		st.feed.Want(add, drop)
	}
}

// tell writes growth to the stream until ctx ends, and something in each
// LifeInterval.
func (st *stream) tell(ctx context.Context) error {
	coder := growthCoder{follows: st.follows}
	var message, frame []byte
	for first := true; ; first = false {
		var news []metadata.Growth
		if !first { // the stream begins with a sign of life
			var err error
			waiting, cancel := context.WithTimeout(ctx, LifeInterval)
			news, err = st.feed.Next(waiting)
			ended := waiting.Err()
			cancel()
			if ctx.Err() != nil {
				return nil
			}
			if err != nil && (ended == nil || !errors.Is(err, ended)) {
				return err
			}
		}
		for {
			message, news = st.encode(&coder, message[:0], news)
			frame = appendFrame(frame[:0], message)
			if err := st.send(frame); err != nil {
				return err
			}
			if len(news) == 0 {
				break
			}
		}
	}
}

// encode encodes as much of the news as goes into a message, and returns the rest.
func (st *stream) encode(coder *growthCoder, message []byte, news []metadata.Growth) ([]byte, []metadata.Growth) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for len(news) > 0 && len(message) < enoughOfAFrame {
		message = coder.appendGrowth(message, &news[0])
		news = news[1:]
	}
	return message, news
}

func (st *stream) send(frame []byte) error {
	if err := st.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := st.w.Write(frame); err != nil {
		return err
	}
	st.server.metrics.carried("out", kindFollow, st.from.Zone, len(frame))
	return st.control.Flush()
}
