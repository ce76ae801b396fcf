package connect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// pollInterval is the time between two looks at something that is to change.
const pollInterval = 50 * time.Millisecond

// errUnavailable tells that a worker can't serve a request now: it is not there, or its cluster is being rebalanced.
var errUnavailable = errors.New("worker unavailable")

// Client is the REST API of a Connect cluster. Its methods ask again, within their contexts, while no worker can serve
// them. They may be called from any goroutine.
type Client struct {
	addresses []string
}

// State is the state of a connector or of a task.
type State string

// The states that a connector can be asked to be in.
const (
	Running State = "RUNNING"
	Paused  State = "PAUSED"
	Stopped State = "STOPPED"
)

// Instance is a connector or a task at work.
type Instance struct {
	State  State  `json:"state"`
	Worker string `json:"worker_id"` // the Address of a Worker
	Trace  string `json:"trace"`     // of the exception by which it failed
}

// Status is what the cluster says of a connector. It is as old as the last change of state that a worker reported.
type Status struct {
	Connector Instance   `json:"connector"`
	Tasks     []Instance `json:"tasks"`
}

// Offset is where a connector is in one of its partitions: in the terms of its own system for a source, in Kafka's for
// a sink.
type Offset struct {
	Partition map[string]any `json:"partition"`
	Offset    map[string]any `json:"offset"` // nil forgets it
}

// Offsets is the body of requests and answers about offsets.
type Offsets struct {
	Offsets []Offset `json:"offsets"`
}

// Configure creates a connector or changes its configuration.
func (c *Client) Configure(ctx context.Context, connector string, config map[string]string) error {
	return c.do(ctx, http.MethodPut, connector, "/config", config, nil)
}

// Pause stops a connector's work and keeps its tasks.
func (c *Client) Pause(ctx context.Context, connector string) error {
	return c.do(ctx, http.MethodPut, connector, "/pause", nil, nil)
}

// Stop ends a connector's tasks; its offsets may be changed then.
func (c *Client) Stop(ctx context.Context, connector string) error {
	return c.do(ctx, http.MethodPut, connector, "/stop", nil, nil)
}

// Resume sets a connector to work that was paused or stopped.
func (c *Client) Resume(ctx context.Context, connector string) error {
	return c.do(ctx, http.MethodPut, connector, "/resume", nil, nil)
}

// Delete deletes a connector.
func (c *Client) Delete(ctx context.Context, connector string) error {
	return c.do(ctx, http.MethodDelete, connector, "", nil, nil)
}

// Status returns the status of a connector.
func (c *Client) Status(ctx context.Context, connector string) (Status, error) {
	var status Status
	err := c.do(ctx, http.MethodGet, connector, "/status", nil, &status)
	return status, err
}

// Connectors returns the names of all connectors.
func (c *Client) Connectors(ctx context.Context) ([]string, error) {
	var names []string
	err := c.do(ctx, http.MethodGet, "", "", nil, &names)
	return names, err
}

// Offsets returns what a connector has committed.
func (c *Client) Offsets(ctx context.Context, connector string) ([]Offset, error) {
	var offsets Offsets
	err := c.do(ctx, http.MethodGet, connector, "/offsets", nil, &offsets)
	return offsets.Offsets, err
}

// AlterOffsets changes offsets of a connector that is stopped.
func (c *Client) AlterOffsets(ctx context.Context, connector string, offsets ...Offset) error {
	return c.do(ctx, http.MethodPatch, connector, "/offsets", Offsets{offsets}, nil)
}

// ResetOffsets forgets the offsets of a connector that is stopped.
func (c *Client) ResetOffsets(ctx context.Context, connector string) error {
	return c.do(ctx, http.MethodDelete, connector, "/offsets", nil, nil)
}

// Await returns when a connector and its tasks, as many as given, are in a state.
func (c *Client) Await(ctx context.Context, connector string, state State, tasks int) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		status, err := c.Status(ctx, connector)
		if err == nil && status.is(state, tasks) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("connector %s is not %s with %d tasks but %+v: %w", connector, state, tasks, status, errors.Join(ctx.Err(), err))
		}
	}
}

func (s Status) is(state State, tasks int) bool {
	if s.Connector.State != state || len(s.Tasks) != tasks {
		return false
	}
	for _, task := range s.Tasks {
		if task.State != state {
			return false
		}
	}
	return true
}

// do sends a request about a connector to one worker after the other until one of them serves it.
func (c *Client) do(ctx context.Context, method, connector, path string, body, answer any) error {
	if connector != "" {
		path = "/" + url.PathEscape(connector) + path
	}
	var encoded []byte
	if body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			return fmt.Errorf("encode the body of %s %s: %w", method, path, err)
		}
	}
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for i := 0; ; i++ {
		address := c.addresses[i%len(c.addresses)]
		content, err := request(ctx, method, "http://"+address+"/connectors"+path, encoded)
		switch {
		case err == nil && answer == nil:
			return nil
		case err == nil:
			if err := json.Unmarshal(content, answer); err != nil {
				return fmt.Errorf("decode the answer to %s %s: %w", method, path, err)
			}
			return nil
		case !errors.Is(err, errUnavailable):
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return err
		}
	}
}

// request sends one request and returns the body of its answer.
func request(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	const patience = 15 * time.Second // a worker that waits for its cluster answers after a minute and a half
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	asked, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	asked.Close = true // no idle connection stays behind
	asked.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(asked)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: %s %s: %w", errUnavailable, method, url, err)
	}
	switch code := response.StatusCode; {
	case code == http.StatusConflict || code >= http.StatusInternalServerError:
		return nil, fmt.Errorf("%w: %s %s: %s: %s", errUnavailable, method, url, response.Status, content)
	case code >= http.StatusBadRequest:
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, response.Status, content)
	}
	return content, nil
}
