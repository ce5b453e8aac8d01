package proxy

import (
	"bytes"
	"io"
	"net"
	"syscall"
	"time"
)

// Stream is one TCP connection with the system calls made directly: a read or a
// write is tried first and the goroutine waits in Go's poller only after EAGAIN,
// without telling the scheduler about a call that cannot block. That is worth 15
// % of a proxy's throughput. Nothing is allocated per call.
//
// One goroutine at a time may read (Read, Fill, Each) and one may write (Write); all
// other methods may be called from any. Read and Fill never wait before they have tried:
// the poller is edge-triggered, and a FIN that came with the data makes no second
// edge. Each, and Fill after Queue, do wait first, on a stream that is watched for that.
type Stream struct {
	conn *net.TCPConn
	raw  syscall.RawConn

	// The function values are made once; what they work on is passed here.
	onRead, onWrite func(fd uintptr) bool
	in              []byte  // where Read reads to
	fill            *Buffer // or where Fill reads to
	each            func() bool
	unread          []byte  // what reading has to begin with
	queue           []byte  // what the next Fill has to write first
	queued          *Buffer // where that is
	out             []byte  // what Write has still to write
	n               int
	readErr         error
	writeErr        error

	watch watched
}

// NewStream takes over c: it must not be used directly any more.
func NewStream(c *net.TCPConn) *Stream {
	s := &Stream{conn: c}
	raw, err := c.SyscallConn()
	if err != nil { // c is closed: every call will say so
		raw = closedConn{err}
	}
	s.raw = raw
	s.onRead = s.tryRead
	s.onWrite = s.tryWrite
	return s
}

// Fill reads once into the free part of b, waiting until there is something. If
// b is empty it holds no memory while it waits. At the end of the stream it
// returns io.EOF; if b has no free part, ErrBufferFull.
func (s *Stream) Fill(b *Buffer) error {
	s.fill = b
	defer func() { s.fill = nil }()
	if s.unread != nil && s.again() > 0 && (s.each == nil || !s.each()) {
		return nil
	}
	_, err := s.read()
	return err
}

// Each is Fill again and again: it calls f after every read, until f returns false or
// reading fails. Where it can it waits without a read that would find nothing, which
// is worth 2 % of a proxy's CPU time: s must be watched, by a function that Interrupts
// it, since a FIN that came with data is not waited for. f runs inside: it must
// not read from s.
func (s *Stream) Each(b *Buffer, f func() bool) error {
	s.each = f
	err := s.Fill(b)
	s.each = nil
	return err
}

// Queue has p, which is in b, written by the next Fill of s, inside the wait for
// the answer: nothing can have come before, and the read that would find that out is
// saved. It is for when the far end waits to be asked; s must be watched, by a function
// that Interrupts it. The bytes of b stay until they are written; then b is released if it
// is empty. Where s is not watched p is written at once.
func (s *Stream) Queue(p []byte, b *Buffer) error {
	if !s.watched() {
		_, err := s.Write(p)
		b.ReleaseIfEmpty()
		return err
	}
	s.queue, s.queued = p, b
	return nil
}

// Flush writes what is queued. It is for the goroutine that Fills.
func (s *Stream) Flush() error {
	if len(s.queue) == 0 {
		return nil
	}
	_, err := s.Write(s.queue)
	s.sent()
	return err
}

// sent forgets what was queued.
func (s *Stream) sent() {
	s.queued.ReleaseIfEmpty()
	s.queue, s.queued = nil, nil
}

// Unread makes the next read begin with a copy of the bytes in b.
func (s *Stream) Unread(b *Buffer) { s.unread = bytes.Clone(b.Bytes()) }

// again reads what was unread.
func (s *Stream) again() int {
	p := s.in
	if s.fill != nil {
		p = s.fill.room()
	}
	n := copy(p, s.unread)
	if s.unread = s.unread[n:]; len(s.unread) == 0 {
		s.unread = nil
	}
	if s.fill != nil {
		s.fill.w += n
	}
	return n
}

// Read implements io.Reader.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.in = p
	defer func() { s.in = nil }()
	if s.unread != nil {
		return s.again(), nil
	}
	return s.read()
}

// Write implements io.Writer: it writes all of p or fails.
func (s *Stream) Write(p []byte) (int, error) {
	s.out, s.writeErr = p, nil
	err := s.writeAll()
	if err == nil {
		err = s.writeErr
	}
	n := len(p) - len(s.out)
	s.out = nil
	return n, err
}

// CloseWrite sends a FIN: the far end reads the end of the stream and can still
// write.
func (s *Stream) CloseWrite() error { return s.conn.CloseWrite() }

// Close closes the connection: a FIN, or a RST if there are bytes nobody read.
func (s *Stream) Close() error {
	s.Unwatch()
	return s.conn.Close()
}

// Reset closes the connection with a RST.
func (s *Stream) Reset() error {
	s.Unwatch()
	s.conn.SetLinger(0)
	return s.conn.Close()
}

// CloseGracefully sends a FIN, then reads and drops what still comes until the
// far end closes too, at most patience long and limit bytes, then closes. So an
// answer to a client that is still sending is not lost to the RST that closing
// with unread bytes means.
func (s *Stream) CloseGracefully(b *Buffer, patience time.Duration, limit int64) error {
	s.Unwatch() // its end is what is waited for
	if err := s.CloseWrite(); err == nil {
		s.SetReadDeadline(time.Now().Add(patience))
		for limit > 0 {
			limit -= int64(b.Len())
			b.Consume(b.Len())
			if err := s.Fill(b); err != nil {
				break
			}
		}
	}
	return s.Close()
}

// SetReadDeadline makes reading fail with os.ErrDeadlineExceeded at t; the zero
// time is never. It also ends a read that is waiting.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// SetWriteDeadline is the same for writing.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.conn.SetWriteDeadline(t) }

// Interrupt makes the read that is waiting, or the next one, fail with
// os.ErrDeadlineExceeded. SetReadDeadline makes the stream readable again.
func (s *Stream) Interrupt() { s.conn.SetReadDeadline(time.Unix(1, 0)) }

// Resume undoes Interrupt.
func (s *Stream) Resume() { s.conn.SetReadDeadline(time.Time{}) }

// LocalAddr and RemoteAddr are those of the socket, which for a redirected
// connection are not what the application sees.
func (s *Stream) LocalAddr() net.Addr  { return s.conn.LocalAddr() }
func (s *Stream) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// Pipe moves bytes from src to dst, through b, until src ends; then dst gets a
// FIN. It returns nil after a clean end.
func Pipe(dst, src *Stream, b *Buffer) error {
	for {
		if n := b.Len(); n > 0 {
			if _, err := dst.Write(b.Bytes()); err != nil {
				return err
			}
			b.Consume(n)
			b.Bulk(n >= smallSize)
		}
		if err := src.Fill(b); err == io.EOF {
			return dst.CloseWrite()
		} else if err != nil {
			return err
		}
	}
}

// closedConn is the RawConn of a connection that was closed before.
type closedConn struct{ err error }

func (c closedConn) Control(func(uintptr)) error    { return c.err }
func (c closedConn) Read(func(uintptr) bool) error  { return c.err }
func (c closedConn) Write(func(uintptr) bool) error { return c.err }
