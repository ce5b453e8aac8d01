package httpproxy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"

	"github.com/weir-proxy/weir/proxy"
)

// maxInterim bounds the 1xx responses to one request.
const maxInterim = 32

// relay reads the response to c.req and writes it to the client as it comes.
func (c *conn) relay() error {
	c.answered = false
	var n int
	for interim := 0; ; interim++ {
		var err error
		if n, err = c.readResponse(); err != nil {
			return err
		}
		if c.resp.status >= 200 {
			break
		}
		if c.resp.status == 101 {
			if !c.req.upgrade || c.upload.running {
				return errSwitch
			}
			return c.tunnel(n)
		}
		if interim == maxInterim {
			return errInterim
		}
		if !c.req.is10 { // RFC 9110, section 15.2
			if _, err := c.client.Write(c.out.Bytes()[:c.resp.size]); err != nil {
				return errClientGone
			}
		}
		c.out.Consume(n)
	}

	c.respBody.start(c.resp.body, c.resp.length)
	b := c.out.Bytes()
	out, used, err := c.respBody.take(b[n:])
	if err != nil {
		return err
	}
	if c.resp.size != n {
		copy(b[c.resp.size:], b[n:n+out])
	}
	c.answered = true
	if _, err := c.client.Write(b[:c.resp.size+out]); err != nil {
		return errClientGone
	}
	c.out.Consume(n + used)
	if !c.respBody.done {
		if err := c.relayBody(); err != nil {
			return err
		}
	}
	if c.out.Len() > 0 {
		return errSurplus
	}
	c.out.Release()
	return nil
}

// readResponse reads until a response's head is whole and parsed; it returns the
// head's length as it came.
func (c *conn) readResponse() (int, error) {
	for parsed := 0; ; {
		if b := c.out.Bytes(); len(b) > parsed {
			if bytes.IndexByte(b[parsed:], '\n') >= 0 {
				n, err := c.resp.parse(b, &c.req)
				if err != errMore {
					return n, err
				}
			}
			if len(b) >= maxHead {
				return 0, errHeadSize
			}
			parsed = len(b)
		}
		err := c.fillUpstream()
		switch {
		case err == proxy.ErrBufferFull:
			if c.out.Grow() != nil {
				return 0, errHeadSize
			}
		case err == io.EOF && parsed > 0:
			return 0, errTruncatedHead
		case err != nil:
			return 0, err
		}
	}
}

// relayBody moves the rest of a response body.
func (c *conn) relayBody() error {
	for used := 0; !c.respBody.done; {
		if n := c.respBody.opaque(used); n > 0 && c.out.Len() == 0 {
			if err := c.moveDown(n); err != nil {
				return err
			}
			continue
		}
		c.out.Bulk(used >= bulkBody/4)
		if err := c.fillUpstream(); err == io.EOF {
			return c.respBody.ended()
		} else if err != nil {
			return err
		}
		var out int
		var err error
		if out, used, err = c.respBody.take(c.out.Bytes()); err != nil {
			return err
		}
		if _, err := c.client.Write(c.out.Bytes()[:out]); err != nil {
			return errClientGone
		}
		c.out.Consume(used)
	}
	c.out.Bulk(false)
	return nil
}

// moveDown moves n bytes of a response body that need no look.
func (c *conn) moveDown(n int64) error {
	moved, err := c.out.Move(c.client, c.up, n)
	c.respBody.skip(moved)
	switch {
	case err == io.EOF:
		return c.respBody.ended()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return c.interrupted()
	}
	return err
}

// fillUpstream reads more from the upstream. What happens to the client and to an
// upload meanwhile is seen to.
func (c *conn) fillUpstream() error {
	for {
		if c.clientHup.Load() {
			if err := c.interrupted(); err != nil {
				return err
			}
		}
		err := c.up.Fill(&c.out)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := c.interrupted(); err != nil {
			return err
		}
	}
}

// interrupted looks for why reading the upstream was interrupted.
func (c *conn) interrupted() error {
	c.up.SetReadDeadline(time.Time{})
	if err := c.up.Flush(); err != nil {
		return err
	}
	if c.clientHup.Load() {
		c.clientHup.Store(false)
		if err := c.clientHungUp(); err != nil {
			return err
		}
	}
	return c.pollUpload()
}

// clientHungUp passes on what the client did while its answer is waited for: a
// FIN after its last request, which it still wants answered, or a RST. The hint is
// kept until it can be acted upon: there is only one for a FIN.
func (c *conn) clientHungUp() error {
	state := c.client.Peek()
	switch {
	case state == proxy.Reset:
		return errClientGone
	case state == proxy.Alive || c.halfClosed:
	case state == proxy.Ended && !c.upload.running && c.in.Len() == 0:
		c.halfClosed = true
		c.up.CloseWrite()
	default: // there are bytes to be read before the FIN
		c.clientHup.Store(true)
	}
	return nil
}

// tunnel passes on the 101 whose head came as n bytes, and from then on every
// byte in both directions: the server has agreed to what an allowed request asked for.
func (c *conn) tunnel(n int) error {
	c.answered = true
	c.s.Hold(c.upgrading)
	c.client.Unwatch()
	c.up.Unwatch()
	c.client.SetReadDeadline(time.Time{})
	c.up.SetReadDeadline(time.Time{})
	b := c.out.Bytes()
	size := c.resp.size + copy(b[c.resp.size:], b[n:])
	if _, err := c.client.Write(b[:size]); err != nil {
		return errClientGone
	}
	if c.in.Len() > 0 {
		if _, err := c.up.Write(c.in.Bytes()); err != nil {
			return err
		}
	}
	c.out.Release()
	c.in.Release()
	c.resp.last = true
	return proxy.Tunnel(c.s, c.up)
}
