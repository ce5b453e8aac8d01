//go:build linux

package doctor

import (
	"fmt"
	"os"
	"regexp"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/weir-proxy/weir/agent/internal/cgroup"
	"github.com/weir-proxy/weir/internal/testbed"
)

// TestForeignPrograms: programs of others are listed in the order in which they run, ours
// are not.
func TestForeignPrograms(t *testing.T) {
	testbed.NeedKernel(t)
	root, err := cgroup.OpenRoot()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	own, err := root.Of("self")
	if err != nil {
		t.Fatal(err)
	}
	group, err := root.Create(own, fmt.Sprintf("test-doctor-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Remove(group)
	for _, name := range []string{"theirs_one", "weir_connect4", "theirs_two"} {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name:         name,
			Type:         ebpf.CGroupSockAddr,
			AttachType:   ebpf.AttachCGroupInet4Connect,
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		l, err := link.AttachCgroup(link.CgroupOptions{Path: root.Path(group), Attach: ebpf.AttachCGroupInet4Connect, Program: p})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	got, err := attached(root.Path(group), ebpf.AttachCGroupInet4Connect)
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^\[theirs_one \(program \d+\) theirs_two \(program \d+\)\]$`)
	if !want.MatchString(fmt.Sprint(got)) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, err := attached(root.Path(group), ebpf.AttachCGroupInet6Connect); err != nil || len(got) != 0 {
		t.Errorf("connect6: %v, %v", got, err)
	}
}
