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

// shimName is the shim's argv[0]. Whoever starts weir under this name by hand gets
// a process with fewer privileges and nothing else.
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
}

// report is what the shim tells weir if the command cannot be started.
type report struct {
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
	err := becomeCommand(os.Args[1:])
	r := report{Status: StatusFailed, Message: err.Error()}
	var e *Error
	if errors.As(err, &e) {
		r.Status = e.Status
	}
	json.NewEncoder(os.NewFile(reportFD, "report")).Encode(r)
	os.Exit(r.Status)
}

func becomeCommand(argv []string) error {
	unix.CloseOnExec(reportFD)
	var s settings
	in := os.NewFile(settingsFD, "settings")
	if err := json.NewDecoder(in).Decode(&s); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	in.Close()
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
	return nil
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

// readReport returns nil if the command was started: the shim's end of the pipe was
// closed by execve.
func readReport(r io.Reader) error {
	var rep report
	err := json.NewDecoder(io.LimitReader(r, 64<<10)).Decode(&rep)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return failedf("read the shim's report: %w", err)
	}
	return &Error{Status: rep.Status, Err: errors.New(rep.Message)}
}
