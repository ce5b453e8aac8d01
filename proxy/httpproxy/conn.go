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

	"github.com/weir-proxy/weir/l7rules"
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

	req       request
	reqBody   framer
	resp      response
	respBody  framer
	upgrading *l7rules.HTTPRequest // a copy of req, if it asks for another protocol
	answered  bool                 // bytes of the final response went to the client
	scratch   []byte               // for answers of the proxy's own

	turn     func() bool      // serve
	parsed   int              // bytes of c.in that hold no whole head
	decision l7rules.Decision // on req
	next     next
	err      error

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
	c.turn = func() bool { return c.serve(ctx) }
	defer c.release()
	for {
		if c.serve(ctx); c.next == waitForClient {
			if err := c.await(); err != nil {
				c.stop(endUnread, err)
			}
		}
		switch c.next {
		case refuse:
			if again := c.deny(c.decision); !again {
				return nil
			}
		case carry:
			if c.exchange(ctx) {
				if err := c.awaitUpload(); err != nil {
					c.stop(endUnread, err)
				}
			}
		}
		switch c.next {
		case endUnread:
			return c.endUnread(c.err)
		case endUnanswered:
			return c.endUnanswered(c.err)
		case endAnswered:
			return c.endAnswered()
		}
		c.next = waitForClient
	}
}

// next is what there is to do that serve cannot: all of it may read from the client.
type next uint8

const (
	waitForClient next = iota
	refuse             // c.req, as c.decision says
	carry              // c.req, which has a body or asks for an upgrade
	endUnread          // with c.err: nothing can be read from the client or sent to the upstream
	endUnanswered      // with c.err, in the middle of an exchange
	endAnswered        // after the last answer
)

func (c *conn) stop(how next, err error) { c.next, c.err = how, err }

// serve carries the requests that are in c.in, one after the other, as far as that goes
// without reading from the client: it runs inside that. It reports whether all there is
// to do is to wait for more; else c.next says what is.
func (c *conn) serve(ctx context.Context) bool {
	for c.in.Len() > 0 {
		whole, err := c.parse()
		if err != nil {
			c.stop(endUnread, err)
			return false
		}
		if !whole {
			break
		}
		c.decision = c.s.Decide(&c.req.HTTPRequest)
		switch {
		case !c.decision.Allowed():
			c.next = refuse
			return false
		case c.req.body != noBody || c.req.upgrade:
			c.next = carry
			return false
		case !c.exchange(ctx):
			return false
		}
	}
	// A hint may have come before a deadline that undid its interruption.
	return !c.upHup.Load() && !c.clientHup.Load()
}

// exchange sends a request that was allowed and relays its answer. It reports whether
// another may follow; else c.next says how the connection ends.
func (c *conn) exchange(ctx context.Context) bool {
	if err := c.send(ctx); err != nil {
		c.stop(endUnread, err)
	} else if err := c.relay(); err != nil {
		c.stop(endUnanswered, err)
	} else if c.req.last || c.resp.last {
		c.stop(endAnswered, nil)
	} else {
		return true
	}
	return false
}

// await waits for the client and serves what comes, until there is something to do
// that serve cannot.
func (c *conn) await() error {
	for c.next == waitForClient {
		if c.up == nil && c.in.Len() == 0 {
			c.setDeadline(c.limits.idle)
		}
		if err := c.fillClient(c.turn); err == proxy.ErrBufferFull {
			if c.in.Grow() != nil {
				return errHeadSize
			}
		} else if err != nil {
			return err
		}
	}
	return nil
}

// parse looks for one request's head at the beginning of c.in and reports whether it is
// whole. It stays there unconsumed, and c.req points into it.
func (c *conn) parse() (whole bool, err error) {
	b := c.in.Bytes()
	if c.parsed == 0 {
		c.req.trim()
		c.resp.trim()
		if err := plausible(b[0]); err != nil {
			return false, err
		}
	}
	// A line is judged when it is whole, so the outcome does not depend on how the
	// bytes were cut into segments.
	if bytes.IndexByte(b[c.parsed:], '\n') >= 0 {
		n, err := c.req.parse(b)
		if err == nil {
			c.req.read = n
			c.parsed = 0
			c.clearDeadline()
			return true, nil
		}
		if err != errMore {
			return false, err
		}
	}
	if len(b) >= maxHead {
		return false, errHeadSize
	}
	if c.parsed == 0 {
		c.setDeadline(c.limits.head)
	}
	c.parsed = len(b)
	return false, nil
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
	c.up.Watch(func() { c.upHup.Store(true); c.client.Interrupt(); c.up.Interrupt() })
	c.client.Watch(func() { c.clientHup.Store(true); c.up.Interrupt(); c.client.Interrupt() })
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
	c.upgrading = nil
	if c.req.upgrade {
		c.upgrading = clone(&c.req.HTTPRequest)
	}
	c.in.Consume(c.req.read + used)
	p := b[:c.req.size+out]
	if c.reqBody.done && !c.upHup.Load() {
		return c.up.Queue(p, &c.in)
	}
	if _, err := c.up.Write(p); err != nil {
		return err
	}
	if !c.reqBody.done {
		c.startUpload()
		return nil
	}
	c.in.ReleaseIfEmpty()
	return nil
}

// fillClient reads more from the client, once, or if turn is given as Stream.Each does.
// An upstream that closes ends the wait: a client that keeps its connection for later must
// see it close.
func (c *conn) fillClient(turn func() bool) error {
	for {
		if c.upHup.Load() {
			c.upHup.Store(false)
			if c.up.Peek() != proxy.Alive {
				return errUpstreamGone
			}
		}
		var err error
		if turn != nil {
			err = c.client.Each(&c.in, turn)
		} else {
			err = c.client.Fill(&c.in)
		}
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

// clone copies a request out of the buffer.
func clone(r *l7rules.HTTPRequest) *l7rules.HTTPRequest {
	c := &l7rules.HTTPRequest{Proto: r.Proto, Method: bytes.Clone(r.Method), Path: bytes.Clone(r.Path), Host: bytes.Clone(r.Host)}
	for _, h := range r.Header {
		c.Header = append(c.Header, l7rules.HeaderField{Name: bytes.Clone(h.Name), Value: bytes.Clone(h.Value)})
	}
	return c
}
