//go:build linux

package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weir-proxy/weir/agent/internal/mounts"
)

// The attacker is this test binary, run by weir. It tries its ways out and prints one
// line for each: its name and how it failed, or ESCAPED.
//
//	attack OUTSIDE [inner]
//
// OUTSIDE is a process of the same user outside of the run. With inner it has become
// root of a user namespace of its own already.

const escaped = "ESCAPED"

type attacker struct {
	outside int // a process of the same user outside
	weir    int // the parent
	inner   bool
}

func attackMain(args []string) {
	switch {
	case len(args) == 1 && args[0] == "euid":
		fmt.Printf("%d %s\n", os.Geteuid(), capEff())
		return
	case len(args) == 1 && args[0] == "terminal":
		(&attacker{}).terminal()
		return
	case len(args) == 0:
		os.Exit(2)
	}
	a := &attacker{inner: len(args) > 1, weir: os.Getppid()}
	a.outside, _ = strconv.Atoi(args[0])
	if a.inner {
		a.weir, _ = strconv.Atoi(args[1])
	}
	a.mountsAndCgroups()
	a.sockets()
	a.processes()
	a.kernel()
	a.nestedRun()
	if !a.inner {
		a.helpers()
		a.nested(args[0])
	}
}

// try prints the outcome of a way out: it failed if err says so.
func (a *attacker) try(name string, err error) {
	if a.inner {
		name = "as root of a namespace: " + name
	}
	if err == nil {
		fmt.Printf("%s: %s\n", name, escaped)
		return
	}
	fmt.Printf("%s: %v\n", name, strings.ReplaceAll(err.Error(), "\n", " "))
}

func writeTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

func (a *attacker) mountsAndCgroups() {
	list, err := mounts.Of("self", "cgroup", "cgroup2", "tmpfs", "bpf")
	if err != nil {
		a.try("list mounts", err)
	}
	pid := strconv.Itoa(os.Getpid())
	scratch, _ := os.MkdirTemp("", "attack")
	defer os.Remove(scratch)
	for _, m := range list {
		isCgroup := strings.HasPrefix(m.Type, "cgroup")
		if !isCgroup && m.Point != "/sys/fs/bpf" {
			continue
		}
		at := " " + m.Point
		if isCgroup {
			a.try("write cgroup.procs of the root"+at, writeTo(m.Point+"/cgroup.procs", pid))
			a.try("write cgroup.procs through /proc/self/root"+at, writeTo("/proc/self/root"+m.Point+"/cgroup.procs", pid))
			a.try("make a cgroup"+at, os.Mkdir(m.Point+"/weir-attack", 0o755))
			a.try("write release_agent"+at, writeTo(m.Point+"/release_agent", "/bin/true"))
			a.try("write to it bound elsewhere"+at, writeBound(m.Point, scratch))
		}
		a.try("remount writable"+at, unix.Mount("", m.Point, "", unix.MS_REMOUNT|unix.MS_BIND, ""))
		a.try("clear read-only"+at, unix.MountSetattr(unix.AT_FDCWD, m.Point, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}))
		a.try("unmount"+at, unix.Unmount(m.Point, unix.MNT_DETACH))
		if m.Type == "cgroup2" {
			a.try("clone into the root cgroup"+at, cloneInto(m.Point))
		}
	}
	a.try("unmount /sys", unix.Unmount("/sys", unix.MNT_DETACH))
	a.try("mount cgroup2", unix.Mount("none", scratch, "cgroup2", 0, ""))
	a.try("mount cgroup", unix.Mount("none", scratch, "cgroup", 0, "none,name=weir-attack"))
	err = writeTo("/proc/sys/user/max_cgroup_namespaces", "10")
	if !a.inner { // else it is its own limit, below others
		a.try("raise the limit of cgroup namespaces", err)
	}
	a.try("new cgroup namespace", unix.Unshare(unix.CLONE_NEWCGROUP))
	fd, err := unix.Fsopen("cgroup2", 0)
	if err == nil {
		if err = unix.FsconfigCreate(fd); err == nil {
			_, err = unix.Fsmount(fd, 0, 0)
		}
		unix.Close(fd)
	}
	a.try("fsopen cgroup2", err)
	a.try("see pins", a.seePins(scratch))
}

// writeBound writes to a cgroup through a bind mount, which a user namespace allows.
func writeBound(point, scratch string) error {
	if err := unix.Mount(point, scratch, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	defer unix.Unmount(scratch, unix.MNT_DETACH)
	if err := os.Mkdir(scratch+"/weir-attack", 0o755); err != nil {
		return err
	}
	return os.Remove(scratch + "/weir-attack")
}

// seePins looks for the entries of runs in every BPF file system that it can see or
// mount.
func (a *attacker) seePins(scratch string) error {
	dirs := []string{"/sys/fs/bpf"}
	if unix.Mount("none", scratch, "bpf", 0, "") == nil {
		dirs = append(dirs, scratch) // newer kernels allow that; it has to be an empty one
		defer unix.Unmount(scratch, unix.MNT_DETACH)
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir + "/weir-runs"); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return errors.New("no pins to be seen")
}

// cloneInto makes a child directly in another cgroup. The kernel does not look at the
// mount for that.
func cloneInto(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	return cmd.Run()
}

func (a *attacker) sockets() {
	for _, s := range []struct {
		name                string
		domain, typ, protoc int
	}{
		{"raw IPv4 socket", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
		{"raw IPv4 socket with header", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW},
		{"raw IPv6 socket", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6},
		{"packet socket", unix.AF_PACKET, unix.SOCK_RAW, 0x0300},
		{"cooked packet socket", unix.AF_PACKET, unix.SOCK_DGRAM, 0x0300},
		{"XDP socket", unix.AF_XDP, unix.SOCK_RAW, 0},
	} {
		fd, err := unix.Socket(s.domain, s.typ, s.protoc)
		if err == nil {
			unix.Close(fd)
		}
		a.try(s.name, err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
	if err == nil {
		var req [40]byte
		copy(req[:], "weirattack")
		req[16] = 1 // IFF_TUN
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req)))
		if err = nil; e != 0 {
			err = e
		}
		unix.Close(fd)
	}
	a.try("tun device", err)
}

func (a *attacker) processes() {
	for _, p := range []struct {
		name string
		pid  int
	}{{"weir", a.weir}, {"a process of the same user", a.outside}} {
		dir := fmt.Sprintf("/proc/%d", p.pid)
		a.try("ptrace "+p.name, unix.PtraceSeize(p.pid))
		for _, file := range []string{"mem", "environ", "ns/mnt", "ns/net", "ns/user", "fd/0", "exe"} {
			f, err := os.Open(dir + "/" + file)
			if err == nil {
				f.Close()
			}
			a.try("open "+file+" of "+p.name, err)
		}
		f, err := os.OpenFile(dir+"/mem", os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		a.try("open mem for writing of "+p.name, err)
		_, err = os.Stat(dir + "/root/")
		a.try("look through root of "+p.name, err)
		_, err = os.Stat(dir + "/cwd/")
		a.try("look through cwd of "+p.name, err)
		var here, there [8]byte
		_, err = unix.ProcessVMReadv(p.pid, []unix.Iovec{{Base: &here[0], Len: 8}},
			[]unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&there)), Len: 8}}, 0)
		if errors.Is(err, unix.EFAULT) {
			err = nil // allowed; just no such address
		}
		a.try("process_vm_readv of "+p.name, err)
		pidfd, err := unix.PidfdOpen(p.pid, 0)
		if err != nil {
			a.try("pidfd_open of "+p.name, err)
			continue
		}
		_, err = unix.PidfdGetfd(pidfd, 0, 0)
		a.try("pidfd_getfd of "+p.name, err)
		for name, ns := range map[string]int{"mount": unix.CLONE_NEWNS, "network": unix.CLONE_NEWNET, "user": unix.CLONE_NEWUSER, "cgroup": unix.CLONE_NEWCGROUP} {
			// Go's threads share too much for some of them, which is not what counts.
			unix.Unshare(unix.CLONE_FS)
			a.try("setns to the "+name+" namespace of "+p.name, unix.Setns(pidfd, ns))
		}
		unix.Close(pidfd)
	}
}

func (a *attacker) kernel() {
	a.try("bpf: load a program", bpfLoad())
	a.try("bpf: walk links", bpfNext(31 /* BPF_LINK_GET_NEXT_ID */))
	a.try("bpf: walk programs", bpfNext(11 /* BPF_PROG_GET_NEXT_ID */))
	_, _, e := unix.Syscall(unix.SYS_FINIT_MODULE, 0, uintptr(unsafe.Pointer(&[]byte("\x00")[0])), 0)
	a.try("load a module", errOf(e))
	_, _, e = unix.Syscall6(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0, 0, 0)
	a.try("kexec", errOf(e))
	for _, file := range []string{
		"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/net/ipv4/ip_forward",
		"/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run",
	} {
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		a.try("open for writing "+file, err)
	}
	f, err := os.Open("/dev/mem")
	if err == nil {
		f.Close()
	}
	a.try("open /dev/mem", err)
	node := filepath.Join(os.TempDir(), fmt.Sprintf("attack-node-%d", os.Getpid()))
	err = unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(254, 0)))
	os.Remove(node)
	a.try("mknod a disk", err)
	h, id, err := unix.NameToHandleAt(unix.AT_FDCWD, "/", 0)
	if err == nil {
		_ = id
		var root int
		if root, err = unix.Open("/", unix.O_RDONLY, 0); err == nil {
			_, err = unix.OpenByHandleAt(root, h, unix.O_RDONLY)
			unix.Close(root)
		}
	}
	a.try("open a file by handle", err)
	_, _, e = unix.RawSyscall(unix.SYS_SETUID, 0, 0, 0)
	if os.Getuid() == 0 {
		e = unix.EPERM // it was root before, and is still the same
	}
	a.try("setuid 0", errOf(e))
	a.try("raise the bounding set again", unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_SYS_ADMIN, 0, 0))
	kind, key, info := []byte("user\x00"), []byte("weir-attack\x00"), []byte("x\x00")
	_, _, e = unix.Syscall6(unix.SYS_REQUEST_KEY, uintptr(unsafe.Pointer(&kind[0])), uintptr(unsafe.Pointer(&key[0])), uintptr(unsafe.Pointer(&info[0])), 0, 0, 0)
	if e != unix.EPERM {
		e = 0 // ENOKEY: it has started a program to ask
	}
	a.try("request a key", errOf(e))
}

// terminal types into the terminal.
func (a *attacker) terminal() {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR, 0)
	a.try("no terminal to type into", err)
	c := byte('#')
	for name, request := range map[string]uintptr{"TIOCSTI": unix.TIOCSTI, "TIOCSTI in 64 bits": unix.TIOCSTI | 1<<32, "TIOCLINUX": tiocLinux} {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&c)))
		a.try(name, errOf(e))
	}
	var size unix.Winsize
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	a.try("an ordinary request", errOf(e))
	fmt.Println("done")
}

func errOf(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func bpfLoad() error {
	insns := [2]uint64{0xb7, 0x95} // r0 = 0; exit
	license := []byte("GPL\x00")
	attr := struct {
		typ, cnt       uint32
		insns, license uint64
		rest           [112]byte
	}{typ: 8 /* cgroup_skb */, cnt: 2, insns: uint64(uintptr(unsafe.Pointer(&insns))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	_, _, e := unix.Syscall(unix.SYS_BPF, 5, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	return errOf(e)
}

func bpfNext(cmd uintptr) error {
	var attr [64]byte
	_, _, e := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	return errOf(e)
}

// helpers are programs that could do it for the attacker.
func (a *attacker) helpers() {
	dir := filepath.Dir(must(os.Executable()))
	out, err := exec.Command(filepath.Join(dir, "setuid"), "euid").CombinedOutput()
	if got := strings.TrimSpace(string(out)); err == nil {
		if want := fmt.Sprintf("%d %s", os.Geteuid(), capEff()); got != want {
			a.try("run a set-user-ID program, it was "+got+" instead of "+want, nil)
		} else {
			a.try("run a set-user-ID program", errors.New("it ran as "+got))
		}
	} else {
		a.try("run a set-user-ID program", err)
	}
}

// nestedRun starts another weir, whose command would have a cgroup and pins of its own.
func (a *attacker) nestedRun() {
	cmd := exec.Command(filepath.Join(filepath.Dir(must(os.Executable())), "weir"), "true")
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState.ExitCode() == StatusFailed {
		err = errors.New(strings.TrimSpace(string(out)))
	}
	a.try("nested weir run", err)
}

// nested tries all the same in a user and mount namespace of its own.
func (a *attacker) nested(outside string) {
	self := must(os.Executable())
	run := func(root bool, flags uintptr) error {
		cmd := exec.Command(self, outside, strconv.Itoa(a.weir))
		cmd.Args[0] = "attack"
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		if root {
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		return cmd.Run()
	}
	if err := run(true, unix.CLONE_NEWUSER|unix.CLONE_NEWNS); err != nil {
		// Root may not map itself to root there.
		fmt.Printf("become root of a namespace: %v\n", err)
		if err := run(false, unix.CLONE_NEWUSER|unix.CLONE_NEWNS); err != nil {
			fmt.Printf("become anybody in a namespace: %v\n", err)
		}
	}
	a.try("new namespaces with a cgroup namespace", run(true, unix.CLONE_NEWUSER|unix.CLONE_NEWNS|unix.CLONE_NEWCGROUP))
}

func capEff() string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "none"
}

func must[T any](v T, err error) T {
	if err != nil {
		fmt.Println("attack:", err)
		os.Exit(1)
	}
	return v
}
