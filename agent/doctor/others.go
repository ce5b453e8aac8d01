//go:build linux

package doctor

import (
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weir-proxy/weir/agent/internal/cgroup"
	"github.com/weir-proxy/weir/agent/internal/mounts"
	"github.com/weir-proxy/weir/agent/internal/runs"
)

// others is what else is on this machine: programs of others beside ours, and what
// dead runs left.
func (e *exam) others() {
	if !e.root || e.refused {
		return
	}
	root, err := cgroup.OpenRoot()
	if err != nil {
		return // said before
	}
	defer root.Close()
	e.foreignPrograms(root)
	e.steering()
	e.leftovers(root)
}

// rewriting are the hooks where a program of somebody else can undo what one of ours
// did.
var rewriting = []struct {
	name string
	at   ebpf.AttachType
}{
	{"connect4", ebpf.AttachCGroupInet4Connect},
	{"connect6", ebpf.AttachCGroupInet6Connect},
	{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg},
	{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg},
	{"getpeername4", ebpf.AttachCgroupInet4GetPeername},
	{"getpeername6", ebpf.AttachCgroupInet6GetPeername},
}

// foreignPrograms lists programs of others on the way up from where a run's cgroup
// would be, in the order in which they run, which is after those of the run.
func (e *exam) foreignPrograms(root *cgroup.Root) {
	own, err := root.Of("self")
	if err != nil {
		return
	}
	for _, h := range rewriting {
		var list []string
		for group := own; ; group = path.Dir(group) {
			found, err := attached(root.Path(group), h.at)
			if err != nil {
				e.add(Unknown, "programs of others on "+h.name, err.Error(), "")
				break
			}
			for _, p := range found {
				list = append(list, fmt.Sprintf("%s at %s", p, group))
			}
			if group == "/" {
				break
			}
		}
		if len(list) > 0 {
			e.add(Note, "programs of others on "+h.name, strings.Join(list, ", then ")+
				"; they run after Weir's, in this order, on the destination that Weir set", "")
		}
	}
}

// attached names the programs on a cgroup that are not ours, in the order in which
// they run.
func attached(dir string, at ebpf.AttachType) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	result, err := link.QueryPrograms(link.QueryOptions{Target: int(f.Fd()), Attach: at})
	if err != nil {
		return nil, err
	}
	var list []string
	for _, p := range result.Programs {
		if name := programName(p.ID); !strings.HasPrefix(name, "weir_") {
			list = append(list, fmt.Sprintf("%s (program %d)", name, p.ID))
		}
	}
	return list, nil
}

func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "unknown"
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil || info.Name == "" {
		return "nameless"
	}
	return info.Name
}

// maxSteering is how many sk_lookup programs one network namespace takes (Linux:
// MAX_BPF_LINK_NETNS, 64).
const maxSteering = 64

// steering counts the sk_lookup programs of this network namespace: each run adds one.
func (e *exam) steering() {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return
	}
	defer f.Close()
	result, err := link.QueryPrograms(link.QueryOptions{Target: int(f.Fd()), Attach: ebpf.AttachSkLookup})
	if err != nil {
		return // the kind of program is missing, which was said before
	}
	if n := len(result.Programs); n >= maxSteering {
		e.add(Missing, "room for another run in this network namespace", fmt.Sprintf("%d sk_lookup programs, the kernel's limit", n), "end another weir run first")
	}
}

// leftovers reports runs whose weir is dead.
func (e *exam) leftovers(root *cgroup.Root) {
	bpffs, err := mounts.FindBPFFS()
	if err != nil {
		return
	}
	dead, _, err := runs.Books{BPFFS: bpffs, Root: root}.List()
	if err != nil {
		e.add(Note, "dead runs", err.Error(), "")
		return
	}
	for _, d := range dead {
		if len(d.PIDs) > 0 {
			e.add(Note, "dead run "+d.ID, fmt.Sprintf("processes %s are still there, cut off from the network", strings.Join(d.PIDs, " ")), "kill "+strings.Join(d.PIDs, " "))
		} else {
			e.add(Note, "dead run "+d.ID, "the next weir run sweeps it up", "")
		}
	}
}
