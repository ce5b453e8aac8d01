package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below use RawSyscall: they do not block, so they return in the time of
// the copy, at most 256 KiB of it, and the scheduler need not be told. recv and send
// skip the file layers that read and write go through. EINTR cannot come from a call
// that does not block, but costs nothing to handle.

func recv(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			unix.MSG_DONTWAIT, 0, 0)
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

func send(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

// errUnsent says that not all that was queued could be sent without waiting.
var errUnsent = errors.New("queue not sent")

func (s *Stream) read() (int, error) {
	for {
		s.n, s.readErr = 0, nil
		if err := s.raw.Read(s.onRead); err != nil {
			return 0, err
		}
		if s.readErr != errUnsent {
			return s.n, s.readErr
		}
		if err := s.Flush(); err != nil {
			return 0, err
		}
	}
}

// tryRead reads; false makes RawConn.Read wait until the socket is readable.
func (s *Stream) tryRead(fd uintptr) bool {
	if len(s.queue) > 0 {
		// RawConn.Read has just forgotten what was readable before.
		return !s.trySend(fd)
	}
	for {
		p := s.in
		if s.fill != nil {
			if p = s.fill.room(); len(p) == 0 {
				s.readErr = ErrBufferFull
				return true
			}
		}
		n, e := recv(fd, p)
		switch {
		case e == syscall.EAGAIN:
			if s.fill != nil {
				s.fill.ReleaseIfEmpty()
			}
			return false
		case e != 0:
			s.readErr = s.opError("recv", e)
			return true
		case n == 0:
			s.readErr = io.EOF
			return true
		}
		s.n = n
		if s.fill != nil {
			s.fill.w += n
		}
		if s.each == nil || !s.each() {
			return true
		}
		// Less than there was room for: the socket was empty, and what has come since
		// then is remembered, because RawConn.Read has not been left.
		if n < len(p) && s.watched() {
			s.fill.ReleaseIfEmpty()
			return false
		}
	}
}

// trySend writes what is queued and reports whether all of it is on its way.
func (s *Stream) trySend(fd uintptr) bool {
	n, e := send(fd, s.queue)
	switch {
	case e == syscall.EAGAIN:
		s.readErr = errUnsent
		return false
	case e != 0:
		s.readErr = s.opError("send", e)
		s.sent()
		return false
	case n < len(s.queue):
		s.queue = s.queue[n:]
		s.readErr = errUnsent
		return false
	}
	s.sent()
	if s.fill != nil {
		s.fill.ReleaseIfEmpty()
	}
	return true
}

func (s *Stream) writeAll() error { return s.raw.Write(s.onWrite) }

func (s *Stream) tryWrite(fd uintptr) bool {
	for len(s.out) > 0 {
		n, e := send(fd, s.out)
		if e == syscall.EAGAIN {
			return false
		}
		if e != 0 {
			s.writeErr = s.opError("send", e)
			return true
		}
		s.out = s.out[n:]
	}
	return true
}

func (s *Stream) opError(op string, e syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Source: s.conn.LocalAddr(), Addr: s.conn.RemoteAddr(), Err: os.NewSyscallError(op, e)}
}
