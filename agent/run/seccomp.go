//go:build linux

package run

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What seccomp_data (linux/seccomp.h) has where. Arguments are 64 bits wide; the kernel
// takes a request of ioctl(2) from the lower half only.
const (
	offsetNR   = 0
	offsetArch = 4
	offsetArg1 = 16 + 8*1 // low half on little-endian machines
)

// x32Bit marks the numbers of the x32 ABI, which has the architecture of x86-64.
const x32Bit = 0x40000000

// calls are the numbers of system calls in one ABI.
type calls struct{ arch, ioctl, requestKey uint32 }

// abis are by architecture the ABIs that its kernels run: the own one, and older ones.
var abis = map[string][]calls{
	"amd64": {
		{unix.AUDIT_ARCH_X86_64, 16, 249},
		{unix.AUDIT_ARCH_X86_64, x32Bit | 514, x32Bit | 249},
		{unix.AUDIT_ARCH_I386, 54, 287},
	},
	"arm64": {
		{unix.AUDIT_ARCH_AARCH64, 29, 218},
		{unix.AUDIT_ARCH_ARM, 54, 310},
	},
	"riscv64": {{unix.AUDIT_ARCH_RISCV64, 29, 218}},
}

// Filter returns for what is refused.
const (
	retAllow  = unix.SECCOMP_RET_ALLOW
	retENOSYS = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	retEPERM  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
)

// restrictCalls installs a seccomp filter on the calling thread for ways out that neither
// permissions nor capabilities close:
//
//   - clone3(2) with CLONE_INTO_CGROUP makes a child in any cgroup whose cgroup.procs
//     the caller may write, and the kernel asks the file's permissions for that, not
//     whether its mount is read-only. Root may write all of them, and users those that
//     systemd delegated to them. The flag is in memory, where no filter looks, so the
//     whole call does not exist (ENOSYS), and libraries fall back to clone(2), as they
//     do in containers;
//   - ioctl(2) with TIOCSTI or TIOCLINUX types into the terminal, for the shell to
//     execute when weir has ended. Linux 6.2 and newer may refuse it by themselves;
//   - request_key(2) has the kernel start /sbin/request-key outside, as root, which for
//     keys of type dns_resolver asks the network what the caller wants to know.
//
// It needs no_new_privs, or CAP_SYS_ADMIN.
func restrictCalls() error {
	filter := callFilter(runtime.GOARCH)
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return fmt.Errorf("install seccomp filter: %w", e)
	}
	return nil
}

func callFilter(goarch string) []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	// unless skips n instructions where the loaded value is not k.
	unless := func(k uint32, n uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: n}
	}
	f := []unix.SockFilter{
		// clone3 has one number in all architectures that Go and their kernels know.
		load(offsetNR),
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: ^uint32(x32Bit)},
		unless(unix.SYS_CLONE3, 1),
		ret(retENOSYS),
	}
	for _, c := range abis[goarch] {
		f = append(f,
			load(offsetArch),
			unless(c.arch, 9),
			load(offsetNR),
			unless(c.requestKey, 1),
			ret(retEPERM),
			unless(c.ioctl, 5),
			load(offsetArg1),
			unless(unix.TIOCSTI, 1),
			ret(retEPERM),
			unless(tiocLinux, 1),
			ret(retEPERM),
		)
	}
	return append(f, ret(retAllow))
}

// tiocLinux is TIOCLINUX of asm-generic/ioctls.h.
const tiocLinux = 0x541C
