package rpc

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/metadata"
)

// The calls, as metrics name them.
const (
	kindCommit = "commit"
	kindFollow = "follow"
	kindBlock  = "block"
	kindPing   = "ping"
)

var kinds = []string{kindCommit, kindFollow, kindBlock, kindPing}

const (
	commitPath = "/v1/commit"
	followPath = "/v1/follow"
	blockPath  = "/v1/blocks/"
	pingPath   = "/v1/ping"
)

// revision is that of the protocol as a whole, which both sides tell. A change that
// the other side need not know of keeps it; a new encoding has a path of its own.
const revision = "1"

// The headers, in canonical form.
const (
	revisionHeader = "Streamhouse-Rpc"
	fromHeader     = "Streamhouse-From"    // the caller's agent id, escaped as in a query
	sessionHeader  = "Streamhouse-Session" // the caller's life
	toHeader       = "Streamhouse-To"      // the life that is meant
	timeoutHeader  = "Streamhouse-Timeout" // ms until the caller gives up
	refusedHeader  = "Streamhouse-Refused" // in an answer: why nothing was done, nor will be
)

// Reasons for refusals.
const (
	refusedRevision  = "another revision"
	refusedPath      = "unknown call"
	refusedStranger  = "the caller is not in the view of the cluster"
	refusedMistaken  = "another agent or life was meant"
	refusedBusy      = "too many calls at a time"
	refusedTooLarge  = "too large"
	refusedMalformed = "malformed"
	refusedHandler   = "unavailable"
)

// setHeaders names the caller and who is meant.
func setHeaders(h http.Header, self, to metadata.Agent) {
	h[revisionHeader] = []string{revision}
	h[fromHeader] = []string{url.QueryEscape(self.ID)}
	h[sessionHeader] = []string{self.Session.String()}
	h[toHeader] = []string{to.Session.String()}
	h["User-Agent"] = nil // which net/http would add
}

// caller is who a request says that it is from.
func caller(h http.Header) (agentID string, session uuid.UUID, err error) {
	if agentID, err = url.QueryUnescape(h.Get(fromHeader)); err != nil {
		return "", uuid.Nil, err
	}
	if session, err = uuid.Parse(h.Get(sessionHeader)); err != nil {
		return "", uuid.Nil, err
	}
	if agentID == "" {
		return "", uuid.Nil, errors.New("no agent id")
	}
	return agentID, session, nil
}

// timeout is how long a caller waits, at most longest.
func timeout(h http.Header, longest time.Duration) time.Duration {
	ms, err := strconv.ParseInt(h.Get(timeoutHeader), 10, 64)
	if err != nil || ms <= 0 || ms > longest.Milliseconds() {
		return longest
	}
	return time.Duration(ms) * time.Millisecond
}
