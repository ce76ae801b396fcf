package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

// Commit implements metadata.Committer: the agent named in commit.AgentID commits
// objects that this one has uploaded, with no record bytes in it. It takes up to
// MaxCommitBatches.
//
// metadata.ErrUnavailable: nothing was done, and nothing will be. Any other error
// leaves it open; what is sent again under the same ids of objects gets the results of
// the first time.
func (c *Client) Commit(ctx context.Context, commit *metadata.Commit) ([][]metadata.CommitResult, error) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	began := time.Now()
	results, err := c.commit(ctx, commit)
	c.metrics.called(kindCommit, result(ctx, err), began)
	if err != nil {
		return nil, fmt.Errorf("commit at agent %q: %w", commit.AgentID, err)
	}
	return results, nil
}

func (c *Client) commit(ctx context.Context, commit *metadata.Commit) ([][]metadata.CommitResult, error) {
	p, err := c.reach(commit.AgentID)
	if err != nil {
		return nil, err
	}
	body, err := appendCommit(nil, commit)
	if err == nil && len(body) > maxCommitBytes {
		err = fmt.Errorf("a commit of %d bytes, at most %d are sent", len(body), maxCommitBytes)
	}
	if err != nil {
		return nil, notBegun{err}
	}
	c.metrics.carried("out", kindCommit, p.agent.Zone, len(body))
	resp, err := c.send(ctx, p, request{
		kind: kindCommit, method: http.MethodPost, path: commitPath, body: io.NopCloser(bytes.NewReader(body)), length: int64(len(body)),
	})
	if err != nil {
		return nil, undecided(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxCommitBytes))
	if err != nil {
		c.judge(ctx, p, err)
		return nil, undecided(err)
	}
	c.metrics.carried("in", kindCommit, p.agent.Zone, len(answer))
	results, err := parseResults(answer, commit)
	if err != nil {
		return nil, undecided(err)
	}
	return results, nil
}

// undecided marks the error of a call that may have happened.
func undecided(err error) error {
	if errors.Is(err, metadata.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", metadata.ErrUnknownOutcome, err)
}

// reach returns an agent that may be called now, or metadata.ErrUnavailable.
func (c *Client) reach(agentID string) (*peer, error) {
	p, err := c.peer(agentID)
	if err != nil {
		return nil, notBegun{err}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.down {
		return nil, notBegun{errors.New("the agent can't be reached")}
	}
	return p, nil
}

// Block asks an agent for the bytes [from, to) of an object of size bytes, of which it
// has them or gets them: MaxBlockBytes at most.
func (c *Client) Block(ctx context.Context, agentID string, object segment.ID, size, from, to int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, blockTimeout)
	defer cancel()
	began := time.Now()
	b, err := c.block(ctx, agentID, object, size, from, to)
	c.metrics.called(kindBlock, result(ctx, err), began)
	if err != nil {
		return nil, fmt.Errorf("bytes %d to %d of object %s from agent %q: %w", from, to, object, agentID, err)
	}
	return b, nil
}

func (c *Client) block(ctx context.Context, agentID string, object segment.ID, size, from, to int64) ([]byte, error) {
	p, err := c.reach(agentID)
	if err != nil {
		return nil, err
	}
	if from < 0 || to <= from || to-from > MaxBlockBytes {
		return nil, notBegun{fmt.Errorf("between 1 and %d bytes can be asked for", MaxBlockBytes)}
	}
	number := func(n int64) []string { return []string{strconv.FormatInt(n, 10)} }
	resp, err := c.send(ctx, p, request{
		kind: kindBlock, method: http.MethodGet, path: blockPath + object.String(),
		query: url.Values{"size": number(size), "from": number(from), "to": number(to)},
	})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.ContentLength != to-from {
		return nil, fmt.Errorf("%w: the peer sends %d bytes instead of %d", errMalformed, resp.ContentLength, to-from)
	}
	b := make([]byte, to-from)
	if _, err := io.ReadFull(resp.Body, b); err != nil {
		c.judge(ctx, p, err)
		return nil, err
	}
	c.metrics.carried("in", kindBlock, p.agent.Zone, len(b))
	return b, nil
}
