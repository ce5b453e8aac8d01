//go:build linux

package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// exam is one run of all checks.
type exam struct {
	Report
	root    bool // with privileges; what needs them is unknown otherwise
	refused bool // bpf(2) is, whatever the privileges
	here    surroundings
}

// Check tries everything. It attaches a program to a throw-away cgroup and leaves
// nothing behind.
func Check() *Report {
	e := &exam{root: os.Geteuid() == 0, here: look()}
	e.privileges()
	e.programs()
	e.places()
	e.confinement()
	e.others()
	return &e.Report
}

func (e *exam) add(state State, what, detail, fix string) {
	e.Findings = append(e.Findings, Finding{state, what, detail, fix})
}

// test adds the outcome of a check.
func (e *exam) test(what, fix string, err error) {
	if err != nil {
		e.add(Missing, what, strings.ReplaceAll(err.Error(), "\n", ", "), fix)
		return
	}
	e.add(OK, what, "", "")
}

// surroundings are the circumstances that advice depends on.
type surroundings struct {
	release   string // of the kernel
	container bool
	wsl       bool
}

// Inodes of the first namespaces (linux/proc_ns.h): who is in another one is in a
// container, or as good as that.
const (
	initUserNS   = 0xEFFFFFFD
	initCgroupNS = 0xEFFFFFFB
)

func look() surroundings {
	var s surroundings
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		s.release = unix.ByteSliceToString(u.Release[:])
	}
	s.wsl = strings.Contains(strings.ToLower(s.release), "microsoft")
	for _, marker := range []string{"/.dockerenv", "/run/.containerenv", "/run/systemd/container"} {
		if _, err := os.Stat(marker); err == nil {
			s.container = true
		}
	}
	for file, first := range map[string]uint64{"user": initUserNS, "cgroup": initCgroupNS} {
		var st unix.Stat_t
		if unix.Stat("/proc/self/ns/"+file, &st) == nil && st.Ino != first {
			s.container = true
		}
	}
	return s
}

// moreRights is how to get the right to do something.
func (s surroundings) moreRights() string {
	if s.container {
		return "this looks like a container: run weir on the host, or the container with --privileged --cgroupns=host"
	}
	return "start weir as root with all capabilities, outside of sandboxes and seccomp filters"
}

// newerKernel is how to get a feature of the kernel.
func (s surroundings) newerKernel() string {
	text := fmt.Sprintf("Linux 6.1 or newer, built with what distributions enable, has it; this is %s", s.release)
	if s.wsl {
		text += ", of WSL: `wsl --update` brings a newer one"
	}
	return text
}

// neededCaps are what weir run uses.
var neededCaps = []struct {
	bit  int
	name string
}{
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
	{unix.CAP_SETUID, "CAP_SETUID"},
	{unix.CAP_SETGID, "CAP_SETGID"},
	{unix.CAP_SETPCAP, "CAP_SETPCAP"},
	{unix.CAP_SETFCAP, "CAP_SETFCAP"},
}

func (e *exam) privileges() {
	if !e.root {
		e.add(Missing, "root", fmt.Sprintf("this is user %d", os.Geteuid()), "start it with sudo")
		return
	}
	e.add(OK, "root", "", "")
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		e.add(Unknown, "capabilities", err.Error(), "")
		return
	}
	var lacking []string
	for _, c := range neededCaps {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			lacking = append(lacking, c.name)
		}
	}
	switch {
	case len(lacking) > 0:
		e.add(Missing, "capabilities", "without "+strings.Join(lacking, ", "), e.here.moreRights())
	default:
		e.add(OK, "capabilities", "", "")
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/user", &st); err == nil && st.Ino != initUserNS {
		e.add(Missing, "the host's user namespace", "root here is not root of the machine, as in a rootless container", e.here.moreRights())
	}
}

// confinement is what weir run needs to keep a command in, beside programs.
func (e *exam) confinement() {
	text, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.add(Missing, "user namespaces", "the kernel has none (CONFIG_USER_NS)", e.here.newerKernel())
	case err != nil:
		e.add(Unknown, "user namespaces", err.Error(), "")
	case strings.TrimSpace(string(text)) == "0":
		e.add(Missing, "user namespaces", "forbidden by user.max_user_namespaces", "sysctl user.max_user_namespaces=1000")
	default:
		e.add(OK, "user namespaces", "", "")
	}
	err = unix.MountSetattr(-1, "x", 0, &unix.MountAttr{})
	if errors.Is(err, unix.ENOSYS) {
		e.add(Missing, "mount_setattr(2)", err.Error(), e.here.newerKernel())
	} else {
		e.add(OK, "mount_setattr(2)", "", "")
	}
}
