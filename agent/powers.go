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

// powers are the capabilities of a namespace's processes that take packets past
// every hook on sockets. Weir's promises do not bind a workload that has them in
// its own namespace.
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

// powersByNamespace reads the processes of the machine once: what those in each
// network namespace could do to it, by its inode.
func powersByNamespace() map[uint64]powers {
	found := map[uint64]powers{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		var st unix.Stat_t
		if unix.Stat(dir+"/ns/net", &st) != nil {
			continue
		}
		b, err := os.ReadFile(dir + "/status")
		if err != nil {
			continue
		}
		for _, name := range effective(string(b)) {
			if !slices.Contains(found[st.Ino], name) {
				found[st.Ino] = append(found[st.Ino], name)
			}
		}
	}
	for _, p := range found {
		slices.Sort(p)
	}
	return found
}

// effective returns the dangerous ones of a process's permitted capabilities, which
// it can use whenever it likes.
func effective(status string) []string {
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
