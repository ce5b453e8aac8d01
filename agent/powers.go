//go:build linux

package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// powers are the capabilities of a workload's processes over their network namespace
// that take packets past every hook on sockets. Weir's promises do not bind a workload
// that has them.
type powers []string

var dangerous = []struct {
	bit  int
	name string
}{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
	{unix.CAP_NET_RAW, "CAP_NET_RAW"},
	{unix.CAP_BPF, "CAP_BPF"},
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},
}

// String says what is wrong with a workload that has them.
func (p powers) String() string {
	if len(p) == 0 {
		return ""
	}
	return "its processes have " + strings.Join(p, ", ") + ", with which packets get past what Weir sees"
}

// processes are the powers of the machine's processes.
type processes struct {
	byNamespace map[uint64]powers // of those in a network namespace, by its inode
	byCgroup    map[string]powers // of those in a cgroup, by its path below the root
}

// lookAtProcesses reads the processes of the machine once.
func lookAtProcesses() processes {
	found := processes{byNamespace: map[uint64]powers{}, byCgroup: map[string]powers{}}
	owners := map[uint64][]uint64{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		b, err := os.ReadFile(dir + "/status")
		if err != nil {
			continue
		}
		names := permitted(string(b))
		if len(names) == 0 {
			continue
		}
		var net, user unix.Stat_t
		if unix.Stat(dir+"/ns/net", &net) != nil || unix.Stat(dir+"/ns/user", &user) != nil {
			continue // gone
		}
		if owners[net.Ino] == nil {
			owners[net.Ino] = owningNamespaces(dir + "/ns/net")
		}
		names = holding(names, user.Ino, owners[net.Ino])
		found.byNamespace[net.Ino] = found.byNamespace[net.Ino].with(names)
		if path, ok := cgroupOf(dir); ok {
			found.byCgroup[path] = found.byCgroup[path].with(names)
		}
	}
	return found
}

func (p powers) with(names []string) powers {
	p = append(slices.Clone(p), names...)
	slices.Sort(p)
	return slices.Compact(p)
}

// holding returns those of a process's capabilities that hold for its network
// namespace: a process has them in its own user namespace and in those below
// (capabilities(7)). owners are the one that owns the network namespace and those
// above; the last is the machine's own, where alone CAP_BPF means anything.
func holding(names []string, user uint64, owners []uint64) []string {
	at := slices.Index(owners, user)
	switch {
	case len(owners) == 0: // it could not be found out
		return names
	case at < 0:
		return nil
	case at == len(owners)-1:
		return names
	}
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "CAP_BPF" })
}

// owningNamespaces lists the user namespace that owns a network namespace and those
// above it, by inode; nil if they cannot be found out.
func owningNamespaces(netns string) []uint64 {
	fd, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	var list []uint64
	for request := uint(unix.NS_GET_USERNS); ; request = unix.NS_GET_PARENT {
		above, err := unix.IoctlRetInt(fd, request)
		unix.Close(fd)
		if err == unix.EPERM && len(list) > 0 { // there is none above
			return list
		}
		if err != nil {
			return nil
		}
		fd = above
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			unix.Close(fd)
			return nil
		}
		list = append(list, st.Ino)
	}
}

// cgroupOf returns the path of a process's cgroup below the root.
func cgroupOf(dir string) (path string, ok bool) {
	b, err := os.ReadFile(dir + "/cgroup")
	if err != nil {
		return "", false
	}
	for l := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(l, "0::"); ok {
			return strings.TrimSuffix(path, "\n"), true
		}
	}
	return "", false
}

// powersOf sums up what the processes of each workload could do. A process is its
// nearest cgroup's that is one, as for the kernel, and its namespace's as well. The
// caller holds a.mu.
func (a *Agent) powersOf(all processes) map[*endpoint]powers {
	found := map[*endpoint]powers{}
	cgroups := map[string]*endpoint{}
	for _, e := range a.active {
		if e.w.Cgroup != "" {
			cgroups[filepath.Clean("/"+e.w.Cgroup)] = e
		} else if p := all.byNamespace[e.handle]; len(p) > 0 {
			found[e] = p
		}
	}
	for path, p := range all.byCgroup {
		for ; path != "/" && path != "."; path = filepath.Dir(path) {
			if e := cgroups[path]; e != nil {
				found[e] = found[e].with(p)
				break
			}
		}
	}
	return found
}

// permitted returns the dangerous ones of a process's permitted capabilities, which
// it can use whenever it likes.
func permitted(status string) []string {
	for l := range strings.Lines(status) {
		text, ok := strings.CutPrefix(l, "CapPrm:")
		if !ok {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		if err != nil {
			return nil
		}
		var names []string
		for _, c := range dangerous {
			if set&(1<<c.bit) != 0 {
				names = append(names, c.name)
			}
		}
		return names
	}
	return nil
}
