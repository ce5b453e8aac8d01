//go:build linux

package run

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// checkStdio refuses standard descriptors that lead out: a socket that was opened
// outside belongs to whoever opened it, and no policy judges it. Unix sockets are
// what some parents use as pipes.
func checkStdio() error {
	for fd, name := range []string{"standard input", "standard output", "standard error"} {
		what, err := leadsOut(fd)
		if err != nil {
			return fmt.Errorf("look at %s: %w", name, err)
		}
		if what != "" {
			return fmt.Errorf("%s is %s, opened outside the policy: give the command a pipe or a file instead (such as `| cat`)", name, what)
		}
	}
	return nil
}

// leadsOut says what a descriptor is if the command must not have it.
func leadsOut(fd int) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		if errors.Is(err, unix.EBADF) {
			return "", nil
		}
		return "", err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil || domain == unix.AF_UNIX {
			return "", err
		}
		return "a network socket", nil
	case 0:
		return "a nameless kernel object", nil // io_uring, BPF, pidfd, ...
	}
	var fsys unix.Statfs_t
	if err := unix.Fstatfs(fd, &fsys); err != nil {
		return "", err
	}
	switch fsys.Type {
	case unix.CGROUP2_SUPER_MAGIC, unix.CGROUP_SUPER_MAGIC:
		return "a cgroup file", nil
	case unix.BPF_FS_MAGIC:
		return "a file of the BPF file system", nil
	case unix.NSFS_MAGIC, unix.PID_FS_MAGIC:
		return "a handle of a process or namespace", nil
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC:
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_ACCMODE == unix.O_RDONLY && st.Mode&unix.S_IFMT == unix.S_IFREG {
			return "", err // reading /proc/cpuinfo harms nobody
		}
		return "a control file of the kernel", nil
	}
	return "", nil
}
