// Package httpproxy judges HTTP/1.1 and HTTP/1.0 request by request (RFC 9110,
// RFC 9112). It reads strictly, once, with its own reader; brings what it read to
// one canonical form; has that judged; and sends exactly that. What it does not
// understand it refuses. docs/http.md has the table of inputs and outcomes.
//
// It is transparent: one upstream connection for each client connection, no
// header added, and whichever side closes, the other side sees it.
package httpproxy

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/weir-proxy/weir/proxy"
)

// Time limits. They bound what only the proxy could end: once there is an
// upstream, its own limits and the client's hold, as they would without a proxy.
const (
	headTimeout = 60 * time.Second // from the first byte of a head to its last
	idleTimeout = 5 * time.Minute  // for the first byte, while there is no upstream
)

type limits struct{ head, idle time.Duration }

// conn is one client connection.
type conn struct {
	s       *proxy.Session
	client  *proxy.Stream
	up      *proxy.Stream // nil until the first allowed request
	in, out proxy.Buffer  // from the client, from the upstream

	req      request
	reqBody  framer
	resp     response
	respBody framer
	answered bool   // bytes of the final response went to the client
	scratch  []byte // for answers of the proxy's own

	limits   limits
	deadline time.Time // of the head that is being read; zero if none
	upload   upload

	clientHup, upHup atomic.Bool // hints of proxy.Stream.Watch
	halfClosed       bool        // the client's FIN was passed on
}

// Handle is the proxy.Handler for HTTP.
func Handle(ctx context.Context, s *proxy.Session) error {
	return handle(ctx, s, limits{headTimeout, idleTimeout})
}

func handle(ctx context.Context, s *proxy.Session, l limits) error {
	c := &conn{s: s, client: s.Client, in: s.NewBuffer(), out: s.NewBuffer(), limits: l}
	defer c.release()
	for {
		if err := c.readRequest(); err != nil {
			return c.endUnread(err)
		}
		if d := s.Decide(&c.req.HTTPRequest); !d.Allowed() {
			if again := c.deny(d); !again {
				return nil
			}
			continue
		}
		if err := c.send(ctx); err != nil {
			return c.endUnread(err)
		}
		if err := c.relay(); err != nil {
			return c.endUnanswered(err)
		}
		if c.req.last || c.resp.last {
			return c.endAnswered()
		}
		if err := c.awaitUpload(); err != nil {
			return c.endUnread(err)
		}
	}
}

// readRequest reads until one request's head is whole and parsed. It stays
// unconsumed at the beginning of c.in, where c.req points into.
func (c *conn) readRequest() error {
	c.req.trim()
	c.resp.trim()
	if c.up == nil && c.in.Len() == 0 {
		c.setDeadline(c.limits.idle)
	}
	for parsed := 0; ; {
		if b := c.in.Bytes(); len(b) > parsed {
			if parsed == 0 {
				if err := plausible(b[0]); err != nil {
					return err
				}
			}
			// A line is judged when it is whole, so the outcome does not depend
			// on how the bytes were cut into segments.
			if bytes.IndexByte(b[parsed:], '\n') >= 0 {
				n, err := c.req.parse(b)
				if err == nil {
					c.req.read = n
					c.clearDeadline()
				}
				if err != errMore {
					return err
				}
			}
			if len(b) >= maxHead {
				return errHeadSize
			}
			if parsed == 0 {
				c.setDeadline(c.limits.head)
			}
			parsed = len(b)
		}
		if err := c.fillClient(); err == proxy.ErrBufferFull {
			if c.in.Grow() != nil {
				return errHeadSize
			}
		} else if err != nil {
			return err
		}
	}
}

// plausible tells by its first byte what is no HTTP at all.
func plausible(first byte) error {
	switch {
	case first == 0x16:
		return errTLS
	case first >= 0x80 || first < ' ' && first != '\r' && first != '\n':
		return errNotHTTP
	}
	return nil
}

// connect dials the upstream. From then on each side's end is noticed while the
// other is waited for.
func (c *conn) connect(ctx context.Context) error {
	up, err := c.s.Dial(ctx)
	if err != nil {
		return err
	}
	c.up = up
	c.up.Watch(func() { c.upHup.Store(true); c.client.Interrupt() })
	c.client.Watch(func() { c.clientHup.Store(true); c.up.Interrupt() })
	return nil
}

// send writes the request upstream: the head, and in the same write what is
// there of its body. If more of it is to come the upload begins.
func (c *conn) send(ctx context.Context) error {
	b := c.in.Bytes()
	c.reqBody.start(c.req.body, c.req.length)
	out, used, err := c.reqBody.take(b[c.req.read:])
	if err != nil {
		return err
	}
	if c.up == nil {
		if err := c.connect(ctx); err != nil {
			return &dialError{err}
		}
	}
	if c.req.size != c.req.read {
		copy(b[c.req.size:], b[c.req.read:c.req.read+out])
	}
	if _, err := c.up.Write(b[:c.req.size+out]); err != nil {
		return err
	}
	c.in.Consume(c.req.read + used)
	if !c.reqBody.done {
		c.startUpload()
		return nil
	}
	c.in.ReleaseIfEmpty()
	return nil
}

// fillClient reads more from the client. An upstream that closes ends the wait:
// a client that keeps its connection for later must see it close.
func (c *conn) fillClient() error {
	for {
		if c.upHup.Load() {
			c.upHup.Store(false)
			if c.up.Peek() != proxy.Alive {
				return errUpstreamGone
			}
		}
		err := c.client.Fill(&c.in)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
			return errTimeout
		}
		c.client.SetReadDeadline(c.deadline)
	}
}

func (c *conn) setDeadline(d time.Duration) {
	c.deadline = time.Now().Add(d)
	c.client.SetReadDeadline(c.deadline)
}

func (c *conn) clearDeadline() {
	if !c.deadline.IsZero() {
		c.deadline = time.Time{}
		c.client.SetReadDeadline(c.deadline)
	}
}

func (c *conn) release() {
	c.stopUpload()
	c.in.Release()
	c.out.Release()
}
