//go:build linux

package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// shimName is the shim's argv[0].
const shimName = "weir run: starting"

// Descriptors of the shim.
const (
	settingsFD = 3
	reportFD   = 4
)

// settings are what weir tells the shim. The command's arguments and environment
// are the shim's own.
type settings struct {
	Account account
	Outside namespaces // weir's own
}

// namespaces are the ones that the shim must not share with weir, by inode.
type namespaces struct{ User, Mount uint64 }

func ownNamespaces() (namespaces, error) {
	var user, mount unix.Stat_t
	if err := errors.Join(unix.Stat("/proc/thread-self/ns/user", &user), unix.Stat("/proc/thread-self/ns/mnt", &mount)); err != nil {
		return namespaces{}, fmt.Errorf("look at namespaces: %w", err)
	}
	return namespaces{user.Ino, mount.Ino}, nil
}

// report is what the shim tells weir: that all is done and the command's program is
// next, and then, if that cannot be started, or before, if something else failed, why.
type report struct {
	Ready   bool
	Status  int
	Message string
}

// Main becomes the shim if this process was started as one, and then does not
// return. Programs that call Run call it first in main, before they start any
// goroutine.
func Main() {
	if len(os.Args) < 2 || os.Args[0] != shimName {
		return
	}
	// Privileges and namespaces are those of a thread. The command gets
	// those of the one that calls execve(2).
	runtime.LockOSThread()
	out := os.NewFile(reportFD, "report")
	err := becomeCommand(os.Args[1:], out)
	r := report{Status: StatusFailed, Message: err.Error()}
	var e *Error
	if errors.As(err, &e) {
		r.Status = e.Status
	}
	json.NewEncoder(out).Encode(r)
	os.Exit(r.Status)
}

func becomeCommand(argv []string, out io.Writer) error {
	unix.CloseOnExec(reportFD)
	var s settings
	in := os.NewFile(settingsFD, "settings")
	if err := json.NewDecoder(in).Decode(&s); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	in.Close()
	// What follows would change the whole machine in the namespaces it was started in.
	own, err := ownNamespaces()
	if err != nil {
		return err
	}
	if out := s.Outside; out.User == 0 || out.Mount == 0 || own.User == out.User || own.Mount == out.Mount {
		return errors.New("not in namespaces of its own")
	}
	if err := confineMounts(s.Account.UID == 0); err != nil {
		return err
	}
	if err := s.Account.assume(); err != nil {
		return err
	}
	// Closed by execve, since Go's runtime needs some of its own until then.
	if err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	if err := json.NewEncoder(out).Encode(report{Ready: true}); err != nil {
		return fmt.Errorf("report to weir: %w", err)
	}
	return execute(argv, os.Getenv("PATH"))
}

// droppedCaps are gone from the command's bounding set, even though they would hold
// in its own user namespace only.
var droppedCaps = []int{
	unix.CAP_SYS_ADMIN,  // mount, and much else
	unix.CAP_BPF,        // attach and read programs
	unix.CAP_PERFMON,    // read the kernel's memory
	unix.CAP_NET_RAW,    // raw and packet sockets pass every socket hook
	unix.CAP_NET_ADMIN,  // packets may be rewritten after the hooks
	unix.CAP_SYS_PTRACE, // make another process do it
	unix.CAP_SYS_MODULE, // change the kernel
	// Beyond those the design names:
	unix.CAP_SYS_RAWIO,       // /dev/mem, ports
	unix.CAP_SYS_BOOT,        // kexec
	unix.CAP_SYS_RESOURCE,    // raise the limit of cgroup namespaces again
	unix.CAP_MKNOD,           // a device file for memory or a disk
	unix.CAP_DAC_READ_SEARCH, // open_by_handle_at: files by inode, past any mount that covers them
	unix.CAP_SETFCAP,         // map root into a user namespace below
	unix.CAP_SETPCAP,         // change what is inherited
	unix.CAP_MAC_ADMIN,
	unix.CAP_MAC_OVERRIDE,
	unix.CAP_CHECKPOINT_RESTORE, // /proc/PID/map_files, choose the next pid
	unix.CAP_SYSLOG,             // kernel addresses
}

// assume gives the calling thread the ids of the account and takes its privileges.
func (a account) assume() error {
	for _, c := range droppedCaps {
		// EINVAL: a capability that this kernel does not know yet.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	// By raw system calls: those of package syscall change all threads.
	groups := make([]uint32, len(a.Groups)+1)
	for i, g := range a.Groups {
		groups[i] = uint32(g)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(a.Groups)), uintptr(unsafe.Pointer(&groups[0])), 0); e != 0 {
		return fmt.Errorf("set groups: %w", e)
	}
	gid, uid := uintptr(a.GID), uintptr(a.UID)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); e != 0 {
		return fmt.Errorf("set group id %d: %w", a.GID, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); e != 0 {
		return fmt.Errorf("set user id %d: %w", a.UID, e)
	}
	if err := a.dropCaps(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return restrictCalls()
}

// dropCaps takes the dropped capabilities from the sets of the calling thread; all
// of them if it is not root.
func (a account) dropCaps() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	keep := [2]uint32{}
	if a.UID == 0 {
		keep = [2]uint32{^uint32(0), ^uint32(0)}
		for _, c := range droppedCaps {
			keep[c/32] &^= 1 << (c % 32)
		}
	}
	for i := range data {
		data[i].Effective &= keep[i]
		data[i].Permitted &= keep[i]
		data[i].Inheritable = 0
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

var errNoReport = errors.New("the command's process died before its program began")

// readReport returns nil if the command was started: then execve closes the shim's end
// of the pipe behind the first report.
func readReport(r io.Reader) error {
	dec := json.NewDecoder(io.LimitReader(r, 64<<10))
	for ready := false; ; {
		var rep report
		err := dec.Decode(&rep)
		switch {
		case errors.Is(err, io.EOF) && ready:
			return nil
		case errors.Is(err, io.EOF):
			return failed(errNoReport)
		case err != nil:
			return failedf("read the shim's report: %w", err)
		case !rep.Ready:
			return &Error{Status: rep.Status, Err: errors.New(rep.Message)}
		}
		ready = true
	}
}
