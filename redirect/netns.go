//go:build linux

package redirect

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// netnsCookie is the number by which the kernel knows the network namespace of
// the calling thread for as long as the machine is up (SO_NETNS_COOKIE, Linux
// 5.14).
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("read network namespace cookie: %w", err)
	}
	defer unix.Close(fd)
	c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read network namespace cookie: %w", err)
	}
	return c, nil
}

// namespace is a network namespace: that of this process, or one behind a path.
// It holds no descriptor, which would keep a dead namespace alive.
type namespace struct {
	path   string // "" this process's own
	cookie uint64 // 0 not known yet
	inode  uint64
}

// errNobodyInside is of a namespace that is known, but has neither its path nor a
// process any more: it is going.
var errNobodyInside = errors.New("nobody is in the network namespace any more")

// do runs f on a thread inside the namespace. A path that has come to name
// another namespace is an error.
func (n namespace) do(f func() error) error {
	if n.path == "" {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine instead of going
		// back to the scheduler in a foreign namespace.
		runtime.LockOSThread()
		done <- n.enter(f)
	}()
	return <-done
}

// enter runs f on the calling thread, which stays in the namespace.
func (n namespace) enter(f func() error) error {
	err := n.enterBy(n.path)
	if err != nil && n.cookie != 0 {
		// The path is gone, or another namespace's now. A task inside will do.
		if task, ok := taskIn(n.inode); ok {
			err = n.enterBy(task)
		} else {
			err = fmt.Errorf("%w: %w", errNobodyInside, err)
		}
	}
	if err != nil {
		return err
	}
	return f()
}

// doNow is do, except that a namespace whose path is gone is looked for in paths, by inode,
// instead of in every process.
func (n namespace) doNow(paths func() map[uint64]string, f func() error) error {
	if n.path == "" {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // as in do
		err := n.enterBy(n.path)
		if err != nil {
			err = n.enterBy(paths()[n.inode])
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// taskPaths finds the network namespaces of all processes.
func taskPaths() map[uint64]string {
	paths := map[uint64]string{}
	procs, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, p := range procs {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil {
			paths[st.Ino] = p
		}
	}
	return paths
}

func (n namespace) enterBy(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	err = unix.Setns(fd, unix.CLONE_NEWNET)
	unix.Close(fd)
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	if n.cookie == 0 {
		return nil
	}
	c, err := netnsCookie()
	if err == nil && c != n.cookie {
		err = fmt.Errorf("enter network namespace %s: it is another one than before", path)
	}
	return err
}

// taskIn finds the path of the network namespace with an inode number through a
// process that lives in it.
func taskIn(inode uint64) (path string, ok bool) {
	procs, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, p := range procs {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil && st.Ino == inode {
			return p, true
		}
	}
	return "", false
}

// inodeOf is the number of the network namespace behind a path, "" for this
// process's own, for as long as it lives.
func inodeOf(path string) (uint64, error) {
	if path == "" {
		path = "/proc/thread-self/ns/net"
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return st.Ino, nil
}

func openNamespace(path string) (namespace, error) {
	inode, err := inodeOf(path)
	if err != nil {
		return namespace{}, err
	}
	n := namespace{path: path, inode: inode}
	err = n.do(func() (err error) {
		n.cookie, err = netnsCookie()
		return err
	})
	return n, err
}
