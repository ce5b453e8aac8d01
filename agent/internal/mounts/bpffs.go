//go:build linux

package mounts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// bpffsPoint is where everybody mounts the BPF file system.
const bpffsPoint = "/sys/fs/bpf"

// ErrNoBPFFS says that the host has no BPF file system mounted.
var ErrNoBPFFS = errors.New("the BPF file system is not mounted: mount -t bpf bpf " + bpffsPoint)

// FindBPFFS returns a path to the host's BPF file system: every mount of type
// bpf is a file system of its own, so all instances of Weir must use the same one,
// and it must outlive them.
func FindBPFFS() (string, error) {
	path := Root(Host()) + bpffsPoint
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Type != unix.BPF_FS_MAGIC {
		return "", ErrNoBPFFS
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return "", fmt.Errorf("the BPF file system at %s is mounted read-only, as in an unprivileged container", path)
	}
	return path, nil
}

// OpenBPFFS is FindBPFFS, but mounts the file system in the host's mount namespace
// first if it is not there, as bpftool and systemd do.
func OpenBPFFS() (string, error) {
	path, err := FindBPFFS()
	if !errors.Is(err, ErrNoBPFFS) {
		return path, err
	}
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and its namespace with it.
		runtime.LockOSThread()
		done <- mountBPFFS()
	}()
	if err := <-done; err != nil {
		return "", fmt.Errorf("mount the BPF file system at %s: %w", bpffsPoint, err)
	}
	return FindBPFFS()
}

func mountBPFFS() error {
	if host := Host(); host != "self" {
		ns, err := os.Open("/proc/" + host + "/ns/mnt")
		if err != nil {
			return err
		}
		defer ns.Close()
		// A thread that shares its working directory with others may not change namespace.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return err
		}
	}
	if _, err := os.Stat(bpffsPoint); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (no sysfs at /sys, or a kernel without CONFIG_BPF_SYSCALL)", err)
	}
	return unix.Mount("bpf", bpffsPoint, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RELATIME, "mode=0700")
}
