//go:build linux

package discover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// machine is where processes and cgroups are looked up.
type machine struct {
	proc    string // "/proc"
	cgroups string // the root of cgroup v2
	netns   string // the host's network namespace, as ns names it
}

// ns names the network namespace of a process, "net:[4026531840]".
func (m *machine) ns(pid int) (string, error) {
	ns, err := os.Readlink(m.path(pid, "ns/net"))
	if err != nil {
		return "", fmt.Errorf("find network namespace: %w", err)
	}
	return ns, nil
}

// cgroup is the cgroup v2 of a process, as a path below the root.
func (m *machine) cgroup(pid int) (string, error) {
	b, err := os.ReadFile(m.path(pid, "cgroup"))
	if err != nil {
		return "", fmt.Errorf("find cgroup: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if group, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(group), nil
		}
	}
	return "", errors.New("find cgroup: no cgroup v2 on this machine")
}

func (m *machine) path(pid int, rest string) string {
	return filepath.Join(m.proc, strconv.Itoa(pid), rest)
}

// isInit reports whether a process is the first of a PID namespace below ours.
func (m *machine) isInit(pid int) bool {
	b, err := os.ReadFile(m.path(pid, "status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if pids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(pids)
			return len(f) > 1 && f[len(f)-1] == "1"
		}
	}
	return false
}

// place notes where the first process of a container is, and reports whether it is
// there.
func (m *machine) place(r *record, pid int) bool {
	ns, err := m.ns(pid)
	if err != nil {
		return false
	}
	group, err := m.cgroup(pid)
	if err != nil {
		group = "" // needed for those in the host's namespace only
	}
	r.pid, r.netns, r.group = pid, ns, group
	return true
}

// alive reports whether the first process of a container is still where it was.
func (m *machine) alive(r *record) bool {
	ns, err := m.ns(r.pid)
	return err == nil && ns == r.netns
}

// finder finds the first process of a container that is being started: the runtime
// makes it, with its cgroup and namespaces, some hundred milliseconds before it
// becomes the container's command, while the engine does not tell of it.
type finder struct {
	m       *machine
	parents []string // cgroups that containers have been seen in
	walked  time.Time
	cost    time.Duration // of the last walk
}

// What one walk through the cgroups may cost: a tenth of the time, and never more
// than one every walkPause.
const (
	walkPause = 20 * time.Millisecond
	walkShare = 10
	walkDepth = 8
)

func newFinder(m *machine) *finder {
	return &finder{m: m, parents: []string{"/docker", "/system.slice"}}
}

// seen remembers where a container was.
func (f *finder) seen(group string) {
	parent := path.Dir(group)
	if parent != "/" && !slices.Contains(f.parents, parent) && len(f.parents) < 64 {
		f.parents = append(f.parents, parent)
	}
}

// names of a container's cgroup, by the engine's cgroup driver: cgroupfs, systemd.
func groupNames(id string) [2]string { return [2]string{id, "docker-" + id + ".scope"} }

// cgroup finds the cgroup of a container, "" if there is none.
func (f *finder) cgroup(id string) string {
	for _, parent := range f.parents {
		for _, name := range groupNames(id) {
			group := path.Join(parent, name)
			if _, err := os.Stat(filepath.Join(f.m.cgroups, group)); err == nil {
				return group
			}
		}
	}
	if time.Since(f.walked) < max(walkPause, walkShare*f.cost) {
		return ""
	}
	start := time.Now()
	group := f.walk(id)
	f.walked, f.cost = time.Now(), time.Since(start)
	if group != "" {
		f.seen(group)
	}
	return group
}

// walk looks for a container's cgroup everywhere: its parent can be set for the engine
// and for each container.
func (f *finder) walk(id string) (found string) {
	names := groupNames(id)
	// The slash is for a root that is a link, such as /proc/self/fd/7.
	filepath.WalkDir(f.m.cgroups+"/", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // gone again
		}
		group, _ := strings.CutPrefix(p, f.m.cgroups)
		if slices.Contains(names[:], d.Name()) {
			found = group
			return fs.SkipAll
		}
		if strings.Count(group, "/") >= walkDepth {
			return fs.SkipDir
		}
		return nil
	})
	return found
}

// first finds the first process of a container that has, or has not, the host's network
// namespace; 0 if it is not there yet.
func (f *finder) first(id string, hostNet bool) int {
	group := f.cgroup(id)
	if group == "" {
		return 0
	}
	procs, err := os.ReadFile(filepath.Join(f.m.cgroups, group, "cgroup.procs"))
	if err != nil {
		return 0
	}
	for _, field := range strings.Fields(string(procs)) {
		pid, err := strconv.Atoi(field)
		if err != nil || !f.m.isInit(pid) {
			continue // one of the runtime's steps on the way there
		}
		if ns, err := f.m.ns(pid); err == nil && (ns == f.m.netns) == hostNet {
			return pid
		}
	}
	return 0
}
