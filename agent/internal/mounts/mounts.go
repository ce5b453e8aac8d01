//go:build linux

// Package mounts reads what is mounted where, and finds the two file systems
// that Weir lives on: cgroup v2 and the BPF file system.
package mounts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Mount is one line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
type Mount struct {
	ID       int
	Root     string // the directory of the file system that is mounted
	Point    string // where, as seen by the process whose mountinfo it is
	ReadOnly bool   // the mount; its file system may still be writable elsewhere
	Type     string // file system type, such as "cgroup2"
}

// maxLine bounds a line of mountinfo: two paths and the options of overlayfs.
const maxLine = 1 << 20

// Parse reads mountinfo. Later mounts come later and cover earlier ones at the
// same point.
func Parse(r io.Reader) ([]Mount, error) {
	var list []Mount
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxLine)
	for sc.Scan() {
		m, err := parseLine(sc.Text())
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	return list, nil
}

func parseLine(line string) (Mount, error) {
	bad := fmt.Errorf("read mountinfo: line %q is not understood", line)
	// 36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw
	before, after, ok := strings.Cut(line, " - ")
	if !ok {
		return Mount{}, bad
	}
	f := strings.Fields(before)
	if len(f) < 6 {
		return Mount{}, bad
	}
	id, err := strconv.Atoi(f[0])
	if err != nil {
		return Mount{}, bad
	}
	typ, _, _ := strings.Cut(after, " ")
	m := Mount{ID: id, Root: unescape(f[3]), Point: unescape(f[4]), Type: typ}
	for _, o := range strings.Split(f[5], ",") {
		m.ReadOnly = m.ReadOnly || o == "ro"
	}
	return m, nil
}

// unescape undoes the kernel's octal escapes of blank, tab, newline and
// backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Of reads the mounts of a process, "self" or its id, that have one of types; of
// any type if none is given.
func Of(pid string, types ...string) ([]Mount, error) {
	f, err := os.Open("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	all, err := Parse(f)
	if err != nil || len(types) == 0 {
		return all, err
	}
	var list []Mount
	for _, m := range all {
		for _, t := range types {
			if m.Type == t {
				list = append(list, m)
			}
		}
	}
	return list, nil
}

// Host returns the id of a process in the host's mount namespace, "self" if that is
// where this process is. `ip netns exec`, for one, gives its command a mount namespace
// with a new /sys, where neither cgroup nor bpf is mounted.
//
// That is PID 1, or where a security module hides that one, kthreadd, PID 2. Where
// both are hidden, this process is the host's.
func Host() string {
	self, err := os.Stat("/proc/thread-self/ns/mnt")
	if err != nil {
		return "self"
	}
	for _, pid := range []string{"1", "2"} {
		host, err := os.Stat("/proc/" + pid + "/ns/mnt")
		if err != nil {
			continue
		}
		// Only kernel threads have no executable; in a container, 2 is any process.
		if _, err := os.Stat("/proc/" + pid + "/exe"); pid == "2" && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if os.SameFile(self, host) {
			return "self"
		}
		return pid
	}
	return "self"
}

// Root is a prefix for the paths that process pid sees, "" for "self".
func Root(pid string) string {
	if pid == "self" {
		return ""
	}
	return "/proc/" + pid + "/root"
}
