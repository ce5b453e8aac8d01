package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weir-proxy/weir/agent"
	"github.com/weir-proxy/weir/agent/records"
)

// maxStatus bounds the status that a client takes, in bytes: some 100,000 endpoints.
const maxStatus = 64 << 20

// patience is how long an agent may take to begin its answer: it may be busy with a new
// set of policies for all its workloads.
const patience = time.Minute

// ErrNoAgent says that no agent answers on a socket.
var ErrNoAgent = errors.New("no agent runs")

// ErrEnded says that the agent stopped while its records were followed.
var ErrEnded = errors.New("the agent has stopped")

// Client asks the agent that listens on a socket.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client. It does not connect yet.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http.Transport = &http.Transport{
		DisableKeepAlives:     true,
		ResponseHeaderTimeout: patience,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}
	return c
}

// Status asks for the agent's status.
func (c *Client) Status(ctx context.Context) (*agent.Status, error) {
	body, err := c.get(ctx, "/status")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var s agent.Status
	if err := json.NewDecoder(io.LimitReader(body, maxStatus)).Decode(&s); err != nil {
		return nil, fmt.Errorf("read the agent's status: %w", err)
	}
	return &s, nil
}

// Query asks for records.
type Query struct {
	Filter Filter
	Last   int // of those that the agent still has; more than it has is all
	Follow bool
	Format records.Format
}

// Records writes records to w, one a line. With Follow it goes on until ctx is done, and
// returns ErrEnded if the agent ends first.
func (c *Client) Records(ctx context.Context, q Query, w io.Writer) error {
	v := q.Filter.query()
	v.Set("last", strconv.Itoa(q.Last))
	v.Set("format", string(q.Format))
	if q.Follow {
		v.Set("follow", "")
	}
	body, err := c.get(ctx, "/records?"+v.Encode())
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(w, body)
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil && q.Follow, errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return ErrEnded
	case err != nil:
		return fmt.Errorf("copy records: %w", err)
	}
	return nil
}

func (c *Client) get(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return nil, fmt.Errorf("ask the agent on %s: %s", c.socket, strings.TrimSpace(string(text)))
	}
	return resp.Body, nil
}

// explain says what to do about an agent that does not answer.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s is not there: start it with weir agent --config FILE, or give the --socket that it has", ErrNoAgent, c.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nobody listens on %s any more: start it with weir agent --config FILE", ErrNoAgent, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("ask the agent on %s: only its user may, which is root: use sudo", c.socket)
	}
	return fmt.Errorf("ask the agent on %s: %w", c.socket, err)
}
