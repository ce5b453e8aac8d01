package proxy

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// hangups watches many streams for the end of their far side in an epoll
// instance of its own, which asks for nothing but EPOLLRDHUP: data coming and
// going makes no event. So one goroutine per connection can wait for one side
// and still learn at once that the other went away.
type hangups struct {
	file *os.File // the epoll instance, itself in Go's poller
	raw  syscall.RawConn

	mu      sync.Mutex
	streams map[int32]watcher
}

type watcher struct {
	s  *Stream
	fn func()
}

func newHangups() (*hangups, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll instance: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make epoll instance non-blocking: %w", err)
	}
	h := &hangups{file: os.NewFile(uintptr(fd), "epoll"), streams: make(map[int32]watcher)}
	if h.raw, err = h.file.SyscallConn(); err != nil {
		h.file.Close()
		return nil, fmt.Errorf("use epoll instance: %w", err)
	}
	go h.run()
	return h, nil
}

func (h *hangups) close() { h.file.Close() }

func (h *hangups) run() {
	events := make([]unix.EpollEvent, 128)
	n := 0
	for {
		err := h.raw.Read(func(fd uintptr) bool {
			for {
				var err error
				n, err = unix.EpollWait(int(fd), events, 0)
				if err != unix.EINTR {
					return n > 0 || err != nil
				}
			}
		})
		if err != nil || n < 0 { // closed
			return
		}
		for _, e := range events[:n] {
			h.mu.Lock()
			if w := h.streams[e.Fd]; w.fn != nil {
				w.fn() // under the lock, so that remove can promise it is over
			}
			h.mu.Unlock()
		}
	}
}

func (h *hangups) add(s *Stream, fn func()) {
	s.raw.Control(func(fd uintptr) {
		key := int32(fd)
		h.mu.Lock()
		h.streams[key] = watcher{s, fn}
		s.watch.fd.Store(key)
		h.mu.Unlock()
		err := errors.ErrUnsupported
		h.raw.Control(func(ep uintptr) {
			err = unix.EpollCtl(int(ep), unix.EPOLL_CTL_ADD, int(key), &unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: key})
		})
		if err != nil { // the connection works as well, it only learns later
			h.remove(s)
		}
	})
}

// remove forgets s. The kernel forgets the descriptor when it is closed.
func (h *hangups) remove(s *Stream) {
	h.mu.Lock()
	if fd := s.watch.fd.Load(); fd != 0 && h.streams[fd].s == s {
		delete(h.streams, fd)
		s.watch.fd.Store(0)
	}
	h.mu.Unlock()
}

// Peek looks at s without reading from it or waiting.
func (s *Stream) Peek() State {
	state := Reset
	s.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR):
			state = Alive
		case err != nil:
			state = Reset
		case n == 0:
			state = Ended
			// Behind a FIN recv says nothing of a RST any more; poll does.
			p := []unix.PollFd{{Fd: int32(fd)}}
			if n, err := unix.Poll(p, 0); err == nil && n > 0 && p[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
				state = Reset
			}
		default:
			state = Pending
		}
	})
	return state
}
