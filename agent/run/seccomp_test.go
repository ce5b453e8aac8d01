//go:build linux

package run

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCallFilter runs the filters of all architectures on calls of all their ABIs.
func TestCallFilter(t *testing.T) {
	const (
		x86, i386   = unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386
		arm64, arm  = unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM
		riscv, x32  = unix.AUDIT_ARCH_RISCV64, x32Bit
		ppc         = unix.AUDIT_ARCH_PPC64LE
		sti, linux  = unix.TIOCSTI, tiocLinux
		wide        = 1<<32 | unix.TIOCSTI
		winsz       = unix.TIOCGWINSZ
		no, missing = retEPERM, retENOSYS
	)
	for _, c := range []struct {
		goarch   string
		arch, nr uint32
		arg1     uint64
		want     uint32
	}{
		{"amd64", x86, 0, 0, retAllow},
		{"amd64", x86, 435, 0, missing},
		{"amd64", x86, x32 | 435, 0, missing},
		{"amd64", i386, 435, 0, missing},
		{"amd64", x86, 16, sti, no},
		{"amd64", x86, 16, wide, no},
		{"amd64", x86, 16, linux, no},
		{"amd64", x86, 16, winsz, retAllow},
		{"amd64", x86, 54, sti, retAllow}, // setsockopt
		{"amd64", x86, 249, 0, no},
		{"amd64", x86, x32 | 514, sti, no},
		{"amd64", x86, x32 | 514, winsz, retAllow},
		{"amd64", x86, x32 | 249, 0, no},
		{"amd64", i386, 54, sti, no},
		{"amd64", i386, 54, linux, no},
		{"amd64", i386, 54, winsz, retAllow},
		{"amd64", i386, 287, 0, no},
		{"amd64", i386, 249, 0, retAllow}, // io_cancel
		{"amd64", i386, 16, sti, retAllow},
		{"arm64", arm64, 435, 0, missing},
		{"arm64", arm64, 29, wide, no},
		{"arm64", arm64, 218, 0, no},
		{"arm64", arm64, 54, sti, retAllow},
		{"arm64", arm, 54, sti, no},
		{"arm64", arm, 310, 0, no},
		{"arm64", arm, 435, 0, missing},
		{"riscv64", riscv, 29, sti, no},
		{"riscv64", riscv, 218, 0, no},
		{"ppc64le", ppc, 435, 0, missing},
		{"ppc64le", ppc, 54, sti, retAllow}, // has no table: its kernel must see to it
	} {
		if got := filterCall(t, callFilter(c.goarch), c.arch, c.nr, c.arg1); got != c.want {
			t.Errorf("%s: arch %#x, call %#x, argument %#x: %#x, want %#x", c.goarch, c.arch, c.nr, c.arg1, got, c.want)
		}
	}
}

// filterCall does what the kernel does with the instructions that callFilter uses.
func filterCall(t *testing.T, filter []unix.SockFilter, arch, nr uint32, arg1 uint64) uint32 {
	t.Helper()
	var data [64]byte
	binary.LittleEndian.PutUint32(data[0:], nr)
	binary.LittleEndian.PutUint32(data[4:], arch)
	binary.LittleEndian.PutUint64(data[24:], arg1)
	var a uint32
	for pc := 0; pc < len(filter); pc++ {
		switch i := filter[pc]; i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = binary.LittleEndian.Uint32(data[i.K:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= i.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			if a == i.K {
				pc += int(i.Jt)
			} else {
				pc += int(i.Jf)
			}
		case unix.BPF_RET | unix.BPF_K:
			return i.K
		default:
			t.Fatalf("instruction %d has code %#x", pc, i.Code)
		}
	}
	t.Fatal("the filter does not end")
	return 0
}
