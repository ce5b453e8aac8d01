//go:build linux

package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weir-proxy/weir/agent/internal/cgroup"
	"github.com/weir-proxy/weir/agent/internal/mounts"
)

// places are where Weir keeps what it has in the kernel.
func (e *exam) places() {
	e.cgroup()
	e.bpffs()
}

func (e *exam) cgroup() {
	const what = "cgroup v2"
	root, err := cgroup.OpenRoot()
	switch {
	case errors.Is(err, cgroup.ErrNamespace), errors.Is(err, cgroup.ErrNoCgroup2) && e.root:
		e.add(Missing, what, err.Error(), "")
		return
	case err != nil:
		e.add(Unknown, what, err.Error(), "")
		return
	}
	defer root.Close()
	e.add(OK, what, "at "+strings.TrimSuffix(root.Path("/"), "/"), "")
	if !e.root {
		e.add(Unknown, "a cgroup for the command, and a program on it", "needs root to find out", "")
		return
	}
	if e.refused {
		return
	}
	if err := tryCgroup(root); err != nil {
		fix := e.here.newerKernel()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) {
			fix = e.here.moreRights()
		}
		e.add(Missing, "a cgroup for the command, and a program on it", err.Error(), fix)
		return
	}
	e.add(OK, "a cgroup for the command, and a program on it", "", "")
}

// tryCgroup makes a cgroup as weir run does, links a program to it, and removes both.
func tryCgroup(root *cgroup.Root) (err error) {
	own, err := root.Of("self")
	if err != nil {
		return err
	}
	group, err := root.Create(own, fmt.Sprintf("weir-doctor-%d", os.Getpid()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Remove(group)) }()
	if _, err := os.Stat(filepath.Join(root.Path(group), "cgroup.kill")); err != nil {
		return err
	}
	prog, err := load(ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect)
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	defer prog.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: root.Path(group), Attach: ebpf.AttachCGroupInet4Connect, Program: prog})
	if err != nil {
		return fmt.Errorf("link program to cgroup: %w", err)
	}
	defer l.Close()
	// Only links can be pinned; AttachCgroup falls back to something else without them.
	if _, err := l.Info(); err != nil {
		return fmt.Errorf("link program to cgroup: %w", err)
	}
	return nil
}

// load loads a program that lets everything pass.
func load(typ ebpf.ProgramType, at ebpf.AttachType) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "weir_doctor",
		Type:         typ,
		AttachType:   at,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
		License:      "GPL",
	})
}

func (e *exam) bpffs() {
	const what = "BPF file system"
	path, err := mounts.FindBPFFS()
	switch {
	case err == nil:
		e.add(OK, what, "at "+path, "")
		return
	case !errors.Is(err, mounts.ErrNoBPFFS):
		e.add(Missing, what, err.Error(), e.here.moreRights())
		return
	}
	fd, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	switch {
	case err == nil:
		unix.Close(fd)
		e.add(OK, what, "not mounted yet; weir run mounts it at /sys/fs/bpf", "")
	case !e.root:
		e.add(Unknown, what, "not mounted; needs root to find out whether the kernel has it", "mount -t bpf bpf /sys/fs/bpf")
	default:
		e.add(Missing, what, err.Error(), e.here.newerKernel())
	}
}
