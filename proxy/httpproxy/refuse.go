package httpproxy

import (
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

const (
	// maxDrain is the largest body of a denied request that is read and dropped
	// to keep the connection usable.
	maxDrain = 64 << 10
	// A client that is still sending when it is refused gets this much time and
	// this many bytes to read its answer before it is reset.
	lingerTime  = 2 * time.Second
	lingerBytes = 4 << 20
	// maxReason bounds X-Weir-Reason.
	maxReason = 200
)

// deny answers a denied request and reports whether another may follow.
func (c *conn) deny(d l7rules.Decision) bool {
	c.in.Consume(c.req.read)
	again := !c.req.last && c.drainable()
	reason := d.Reason
	if reason == "" {
		reason = d.Policy
	}
	answered := c.answer("403 Forbidden", "Access denied\r\n", reason, !again)
	if again && answered == nil && (c.reqBody.done || c.drain(c.req.length)) {
		return true
	}
	c.farewell()
	return false
}

// drainable reports whether the connection can be used again behind the denied
// request's body. What it says depends on the body alone, not on how much of it
// has come: a chunked one it reads to its end to see how long it is.
func (c *conn) drainable() bool {
	c.reqBody.start(c.req.body, c.req.length)
	switch {
	case c.req.body == noBody:
		return true
	case c.req.expect:
		return false // nobody knows whether the body will come
	case c.req.body == lengthBody:
		return c.req.length <= maxDrain
	}
	return c.drain(maxDrain)
}

// drain drops the request's body; it reports false if that has more than limit bytes,
// framing included, or cannot be read.
func (c *conn) drain(limit int64) bool {
	c.setDeadline(c.limits.head)
	defer c.clearDeadline()
	for {
		_, used, err := c.reqBody.take(c.in.Bytes())
		if limit -= int64(used); err != nil || limit < 0 {
			return false
		}
		c.in.Consume(used)
		if c.reqBody.done {
			return true
		}
		if c.fillClient(nil) != nil {
			return false
		}
	}
}

// endUnread ends a connection on which no request can be read or sent any more.
func (c *conn) endUnread(err error) error {
	var dial *dialError
	var upload *badUpload
	switch {
	case err == io.EOF:
		return nil
	case err == errUpstreamGone:
		c.stopUpload()
		return nil
	case err == errTLS || err == errNotHTTP:
		c.s.Refuse(flow.Dropped, err.Error(), nil)
		return err
	case err == errTimeout && c.in.Len() == 0:
		return nil
	case err == errTimeout:
		c.s.Refuse(flow.Error, err.Error(), nil)
		return c.endWith("408 Request Timeout", err)
	case errors.As(err, &dial):
		c.s.Refuse(flow.Error, err.Error(), &c.req.HTTPRequest)
		return c.endWith("502 Bad Gateway", err)
	case errors.As(err, &upload): // behind its own answer
		c.s.Refuse(flow.Error, err.Error(), nil)
	case isUnreadable(err):
		c.s.Refuse(verdictOf(err), err.Error(), nil)
		return c.endWith("400 Bad Request", err)
	}
	return err
}

// endUnanswered ends a connection in the middle of an exchange.
func (c *conn) endUnanswered(err error) error {
	c.stopUpload()
	var upload *badUpload
	status := "502 Bad Gateway"
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return nil // the client sees the end as it came
	case errors.As(err, &upload):
		status = "400 Bad Request"
	case !isUnreadable(err):
		return err
	}
	c.s.Refuse(flow.Error, err.Error(), nil)
	switch {
	case err == errSurplus:
		return nil // after a whole response
	case c.answered:
		return err
	}
	c.up.Reset()
	return c.endWith(status, err)
}

// endAnswered ends a connection after its last response.
func (c *conn) endAnswered() error {
	if c.upload.running {
		c.stopUpload()
		c.farewell()
	}
	return nil
}

// farewell closes the client's connection so that it can still read what it was sent.
func (c *conn) farewell() {
	if c.up != nil {
		c.up.Close() // whose end would otherwise cut this short
	}
	c.client.CloseGracefully(&c.in, lingerTime, lingerBytes)
}

// endWith answers with status and closes.
func (c *conn) endWith(status string, err error) error {
	if err := c.answer(status, status[4:]+": "+err.Error()+"\r\n", err.Error(), true); err != nil {
		return err
	}
	c.farewell()
	return nil
}

// answer writes a response of the proxy's own.
func (c *conn) answer(status, body, reason string, last bool) error {
	b := append(c.scratch[:0], "HTTP/1.1 "...)
	b = append(b, status...)
	b = append(b, "\r\nContent-Type: text/plain\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\nX-Weir-Reason: "...)
	b = appendReason(b, reason)
	switch {
	case last:
		b = append(b, "\r\nConnection: close"...)
	case c.req.is10:
		b = append(b, "\r\nConnection: keep-alive"...)
	}
	b = append(b, "\r\n\r\n"...)
	if !c.req.isHead {
		b = append(b, body...)
	}
	c.scratch = b
	_, err := c.client.Write(b)
	return err
}

// appendReason adds s as a field value: printable ASCII, at most maxReason of it.
func appendReason(b []byte, s string) []byte {
	for i := range min(len(s), maxReason) {
		ch := s[i]
		if ch < ' ' || ch > '~' {
			ch = '?'
		}
		b = append(b, ch)
	}
	return b
}
