//go:build linux

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrRunning says that a socket is another agent's.
var ErrRunning = errors.New("an agent runs already")

// Listener is a socket that is one agent's for as long as that lives: it holds a lock on
// a file beside it, so that what a dead agent left is told from what a living one has.
type Listener struct {
	net.Listener
	lock *os.File
}

// Listen makes the socket, which only this user may use, and the directory that it is
// in. The error wraps ErrRunning where another agent has it.
func Listen(path string) (_ *Listener, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of socket: %w", err)
	}
	l := &Listener{}
	if l.lock, err = lock(path + ".lock"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.unlock()
		}
	}()
	// The lock says that no agent uses what is there.
	fi, err := os.Lstat(path)
	switch {
	case err == nil && fi.Mode()&fs.ModeSocket == 0:
		return nil, fmt.Errorf("make socket: %s is there and is no socket: remove it, or give another path", path)
	case err == nil:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the socket of a dead agent: %w", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("make socket: %w", err)
	}
	// A unix socket has the mode in the file system that it has when it is bound.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		return err
	}}
	if l.Listener, err = lc.Listen(context.Background(), "unix", path); err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	return l, nil
}

// Release removes the socket and lets another agent have it. Close alone does not.
func (l *Listener) Release() {
	l.Listener.Close()
	l.unlock()
}

func (l *Listener) unlock() {
	os.Remove(l.lock.Name())
	l.lock.Close()
}

// lock opens a file that only one process at a time can lock.
func lock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock socket: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%w%s on %s: stop it, or give this one another socket", ErrRunning, holder(f), strings.TrimSuffix(path, ".lock"))
			f.Close()
			return nil, err
		}
		if err == nil && sameFile(f, path) {
			if err = f.Truncate(0); err == nil {
				_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
			}
			if err == nil {
				return f, nil
			}
		}
		f.Close()
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("lock socket: %w", err)
		}
		// Whoever had it removed the file while we opened it: once more.
	}
}

func sameFile(f *os.File, path string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(ours, now)
}

// holder says who has locked a file.
func holder(f *os.File) string {
	pid, err := io.ReadAll(io.LimitReader(f, 16))
	if err != nil || len(pid) == 0 {
		return ""
	}
	return " (pid " + strings.TrimSpace(string(pid)) + ")"
}
