package httpproxy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/weir-proxy/weir/proxy"
)

// upload is the second goroutine of a connection. It exists only while a request
// body that was not wholly there with its head is on its way, so that an answer
// that comes before the body's end reaches the client, and neither side waits for
// the other. It owns c.in, c.reqBody and the reading side of the client.
type upload struct {
	running bool // known to the main goroutine only
	done    chan error
	stop    atomic.Bool // give up
	awaited atomic.Bool // the main goroutine waits for nothing else
}

var errStopped = errors.New("upload stopped")

// panicked carries a panic of the upload to the main goroutine.
type panicked struct{ value any }

func (p *panicked) Error() string { return fmt.Sprint(p.value) }

func (c *conn) startUpload() {
	if c.upload.done == nil {
		c.upload.done = make(chan error, 1)
	}
	c.upload.running = true
	c.upload.stop.Store(false)
	go func() {
		err := c.pumpBody()
		c.upload.done <- err
		if err != nil || c.upload.awaited.Load() {
			c.up.Interrupt()
		}
	}()
}

// pumpBody moves the rest of the request body upstream.
func (c *conn) pumpBody() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicked{p}
		}
	}()
	for used := 0; !c.reqBody.done; {
		if n := c.reqBody.opaque(used); n > 0 && c.in.Len() == 0 {
			if err := c.moveUp(n); err != nil {
				return err
			}
			continue
		}
		c.in.Bulk(used >= bulkBody/4)
		if err := c.fillBody(); err != nil {
			return c.bodyCut(err)
		}
		var out int
		if out, used, err = c.reqBody.take(c.in.Bytes()); err != nil {
			return err
		}
		if _, err := c.up.Write(c.in.Bytes()[:out]); err != nil {
			return errUpstreamGone
		}
		c.in.Consume(used)
	}
	c.in.Bulk(false)
	return nil
}

// moveUp moves n bytes of the request body that need no look.
func (c *conn) moveUp(n int64) error {
	moved, err := c.in.Move(c.up, c.client, n)
	c.reqBody.skip(moved)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return c.resumeBody()
	case err != io.EOF && c.client.Peek() != proxy.Reset:
		return errUpstreamGone
	}
	return c.bodyCut(err)
}

// bodyCut ends a body that the client did not finish: the server sees what it would
// have seen without a proxy.
func (c *conn) bodyCut(err error) error {
	if err == io.EOF {
		c.up.CloseWrite()
		return io.ErrUnexpectedEOF
	}
	return err
}

// fillBody reads more of the body from the client.
func (c *conn) fillBody() error {
	for {
		err := c.client.Fill(&c.in)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := c.resumeBody(); err != nil {
			return err
		}
	}
}

// resumeBody makes the client readable again after an interruption, unless that was
// to stop the upload.
func (c *conn) resumeBody() error {
	c.client.SetReadDeadline(time.Time{})
	if c.upload.stop.Load() {
		return errStopped
	}
	return nil
}

// pollUpload takes in the end of the upload, if it has come. It returns an error
// if the exchange cannot go on.
func (c *conn) pollUpload() error {
	if !c.upload.running {
		return nil
	}
	select {
	case err := <-c.upload.done:
		c.upload.running = false
		return c.uploadEnded(err)
	default:
		return nil
	}
}

func (c *conn) uploadEnded(err error) error {
	var p *panicked
	switch {
	case err == nil:
		return nil
	case err == io.ErrUnexpectedEOF || err == errUpstreamGone:
		// There may be an answer all the same, but nothing after it.
		c.req.last = true
		return nil
	case errors.As(err, &p):
		panic(p.value)
	case isUnreadable(err):
		return &badUpload{err}
	default:
		return errClientGone
	}
}

// awaitUpload waits for the end of a request body whose answer came before it.
func (c *conn) awaitUpload() error {
	if !c.upload.running {
		return nil
	}
	c.upload.awaited.Store(true)
	defer c.upload.awaited.Store(false)
	for {
		if err := c.pollUpload(); err != nil {
			return err
		}
		if !c.upload.running {
			if c.req.last {
				return io.EOF
			}
			return nil
		}
		err := c.up.Fill(&c.out)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return errUpstreamGone
		}
		if err := c.interrupted(); err != nil {
			return err
		}
	}
}

// stopUpload ends the upload where it stands; the upstream is of no more use then.
func (c *conn) stopUpload() {
	if !c.upload.running {
		return
	}
	c.upload.stop.Store(true)
	c.up.Reset()
	c.client.Interrupt()
	<-c.upload.done
	c.upload.running = false
}
