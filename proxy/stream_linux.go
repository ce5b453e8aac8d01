package proxy

import (
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

func (s *Stream) read() (int, error) {
	s.n, s.readErr = 0, nil
	if err := s.raw.Read(s.onRead); err != nil {
		return 0, err
	}
	return s.n, s.readErr
}

// tryRead reads once; false makes RawConn.Read wait until the socket is readable.
func (s *Stream) tryRead(fd uintptr) bool {
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
	case n == 0:
		s.readErr = io.EOF
	default:
		s.n = n
		if s.fill != nil {
			s.fill.w += n
		}
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
