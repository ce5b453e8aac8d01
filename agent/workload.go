//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/redirect"
	"golang.org/x/sys/unix"
)

// Workload is what becomes an endpoint: the processes of a network namespace or of a
// cgroup.
type Workload struct {
	Name   string          // "namespace/name", unique
	Labels identity.Labels // its namespace's included
	// One of these names it.
	Netns  string // path of a network namespace
	PID    int    // the network namespace of that process
	Cgroup string // path below the cgroup root, such as /system.slice/orders.service
	// Unconfined allows it to have processes that can change packets after every
	// socket hook: CAP_NET_ADMIN, CAP_NET_RAW or CAP_BPF over its network namespace.
	Unconfined bool
}

// same reports whether nothing has to be done to make one of the other.
func (w Workload) same(o Workload) bool {
	return w.Name == o.Name && w.Labels.Equal(o.Labels) && w.Netns == o.Netns && w.PID == o.PID && w.Cgroup == o.Cgroup &&
		w.Unconfined == o.Unconfined
}

// path is where its handle is, whose inode says which one it is.
func (w Workload) path(cgroupRoot string) string {
	switch {
	case w.Cgroup != "":
		return filepath.Join(cgroupRoot, w.Cgroup)
	case w.PID != 0:
		return "/proc/" + strconv.Itoa(w.PID) + "/ns/net"
	}
	return w.Netns
}

// endpoint is a workload that is there.
type endpoint struct {
	w        Workload
	id       uint32
	identity identity.ID
	handle   uint64 // inode of the namespace or cgroup
	kernel   *redirect.Endpoint
	verdicts atomic.Pointer[verdicts]
	written  *verdicts       // those that the kernel was told, nil while it may have others
	gone     context.Context // done when it is dropped: its connections hold its namespace
	end      context.CancelFunc
	missed   int    // sweeps in a row that found nobody
	powers   powers // what its processes could do to its namespace
	cut      bool   // refused for that: everything is denied
	watched  bool   // its cgroup.events is
}

// SetWorkloads replaces the workloads. One that is not there yet is waited for. An
// error names those that could not be put under policy; they are tried again.
func (a *Agent) SetWorkloads(list []Workload) error {
	wanted := make(map[string]Workload, len(list))
	for _, w := range list {
		if _, ok := wanted[w.Name]; ok {
			return fmt.Errorf("workload %s: there are two of that name", w.Name)
		}
		if err := w.check(); err != nil {
			return err
		}
		wanted[w.Name] = w
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted = wanted
	return a.reconcile()
}

func (w Workload) check() error {
	n := 0
	for _, set := range []bool{w.Netns != "", w.PID != 0, w.Cgroup != ""} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("workload %s: give one of netns, pid and cgroup", w.Name)
	}
	return nil
}

// handle returns the inode of a workload's namespace or cgroup; 0 if it is not there.
func (a *Agent) handle(w Workload) (uint64, error) {
	f, err := os.Open(w.path(a.cfg.CgroupRoot))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at workload %s: %w", w.Name, err)
	}
	defer f.Close()
	var fsys unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Fstatfs(int(f.Fd()), &fsys), unix.Fstat(int(f.Fd()), &st)); err != nil {
		return 0, fmt.Errorf("look at workload %s: %w", w.Name, err)
	}
	want := int64(unix.NSFS_MAGIC)
	if w.Cgroup != "" {
		want = unix.CGROUP2_SUPER_MAGIC
	}
	if fsys.Type != want { // the file that a namespace is mounted on, before it is or after
		return 0, nil
	}
	return st.Ino, nil
}

// reconcile makes what is in force what is wanted and there. The caller holds a.mu.
func (a *Agent) reconcile() error {
	a.watchDirs()
	var errs []error
	var come []*endpoint
	went := false
	for name, e := range a.active {
		w, ok := a.wanted[name]
		handle, err := a.handle(e.w)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		switch {
		case ok && w.same(e.w) && handle == e.handle:
			continue
		case ok && handle == e.handle && e.kernel != nil:
			// Never out of force, not for a moment.
			if err := a.relabel(e, w); err != nil {
				errs = append(errs, err)
			}
			went = true
			continue
		case handle != e.handle && mayLiveOn(e):
			// Its path is gone, or another's now, but processes of it live on.
			a.dying = append(a.dying, e)
			delete(a.active, name)
			a.log.Info("workload is going", "workload", name)
		default:
			delete(a.active, name)
			errs = append(errs, a.drop(e))
			a.log.Info("workload went", "workload", name)
		}
		went = true
	}
	for name, cfg := range a.blocked {
		if _, ok := a.wanted[name]; !ok {
			errs = append(errs, a.kernel.Unblock(cfg))
			delete(a.blocked, name)
		}
	}
	a.refused = map[string]string{}
	for name, e := range a.active {
		if e.cut {
			a.refused[name] = e.powers.String()
		}
	}
	handles := map[uint64]string{}
	for name, e := range a.active {
		handles[e.handle] = name
	}
	for name, w := range a.wanted {
		if a.active[name] != nil {
			continue
		}
		handle, err := a.handle(w)
		if err != nil {
			errs = append(errs, err)
			a.refused[name] = err.Error()
			continue
		}
		if handle == 0 {
			continue // waited for
		}
		if other, ok := handles[handle]; ok {
			err := fmt.Errorf("workload %s: it is the namespace or cgroup of %s", name, other)
			a.refused[name] = err.Error()
			errs = append(errs, err)
			continue
		}
		handles[handle] = name
		e := &endpoint{w: w, handle: handle}
		e.gone, e.end = context.WithCancel(context.Background())
		if e.identity, err = a.ids.Acquire(w.Labels); err != nil {
			e.end()
			errs = append(errs, err)
			continue
		}
		a.nextID++
		e.id = a.nextID
		come = append(come, e)
	}
	for _, e := range come {
		a.active[e.w.Name] = e
		a.byID[e.id] = e
	}
	if len(come) > 0 {
		poke(a.soon) // what a newcomer is made of may change as it starts
	}
	if len(come) == 0 && !went {
		return errors.Join(errs...)
	}
	errs = append(errs, a.weigh(come))
	// Peers may have come or gone, so everybody's policy is resolved again; that of
	// newcomers is there before they are.
	if err := a.refresh(); err != nil {
		errs = append(errs, err)
		a.denyUnresolved(come)
	}
	var paths []string
	for _, e := range come {
		if e.w.Cgroup == "" {
			paths = append(paths, e.w.path(a.cfg.CgroupRoot))
		}
	}
	if len(paths) > 1 {
		a.kernel.Prepare(paths)
		defer a.kernel.Discard()
	}
	for _, e := range come {
		if err := a.add(e); err != nil {
			a.refused[e.w.Name] = err.Error()
			delete(a.active, e.w.Name)
			// Until it can be judged, it opens no socket.
			errs = append(errs, err, a.drop(e), a.kernel.Block(a.endpointConfig(e)))
			a.blocked[e.w.Name] = a.endpointConfig(e)
			continue
		}
		delete(a.blocked, e.w.Name)
	}
	for _, e := range a.active {
		if e.kernel != nil {
			errs = append(errs, e.kernel.SetIdentity(e.identity))
		}
	}
	errs = append(errs, a.syncAddresses())
	return errors.Join(errs...)
}

// relabel gives a workload that stays another name, other labels or another word on
// its powers. What follows from that is resolved by the caller, who holds a.mu.
func (a *Agent) relabel(e *endpoint, w Workload) error {
	id, err := a.ids.Acquire(w.Labels)
	if err != nil {
		return fmt.Errorf("workload %s: %w", w.Name, err)
	}
	a.ids.Release(e.identity)
	e.w, e.identity = w, id
	if e.cut && w.Unconfined {
		e.cut = false
	}
	a.log.Info("workload has changed", "workload", w.Name, "endpoint", e.id, "identity", id)
	return nil
}

// weigh cuts off newcomers whose processes could get past us, unless the
// configuration knows. The caller holds a.mu.
func (a *Agent) weigh(come []*endpoint) error {
	if len(come) == 0 || a.cfg.CutWithProxy { // whoever has only one workload confines it himself
		return nil
	}
	var errs []error
	all := a.powersOf(lookAtProcesses())
	for _, e := range come {
		if e.powers = all[e]; len(e.powers) > 0 && !e.w.Unconfined {
			e.cut = true
			err := fmt.Errorf("workload %s: %s: everything is denied to it; take them from it, or name it `unconfined: true`", e.w.Name, e.powers)
			errs = append(errs, err)
			a.refused[e.w.Name] = err.Error()
		}
	}
	return errors.Join(errs...)
}

// weighAgain looks at the processes of all workloads, and reports whether somebody's
// verdict changes with that. A namespace that comes to powers later is only warned
// about: an operator who looks into it as root must not stop what runs there. Into a
// cgroup nobody comes by looking: it is cut off when it is found so twice, since
// a service manager starts a process inside before it takes its powers away. The caller
// holds a.mu.
func (a *Agent) weighAgain() bool {
	all := a.powersOf(lookAtProcesses())
	changed := false
	for name, e := range a.active {
		p, before := all[e], e.powers
		e.powers = p
		switch {
		case e.w.Unconfined:
		case e.cut && len(p) == 0:
			a.log.Info("workload is confined now, and judged by its policies", "workload", name)
			e.cut, changed = false, true
			delete(a.refused, name)
		case e.cut || len(p) == 0:
		case e.w.Cgroup != "" && len(before) > 0:
			a.log.Error("workload is cut off: "+p.String(), "workload", name)
			e.cut, changed = true, true
			a.refused[name] = p.String()
		case e.w.Cgroup != "":
			poke(a.soon)
		case len(p) > len(before):
			a.log.Warn("workload is not confined: "+p.String(), "workload", name)
		}
	}
	return changed
}

// denyUnresolved gives newcomers whose policy cannot be resolved one that denies
// everything.
func (a *Agent) denyUnresolved(come []*endpoint) {
	for _, e := range come {
		if e.verdicts.Load() == nil {
			e.verdicts.Store(&verdicts{policy: a.denyAll, peers: entityPeers()})
		}
	}
}

func (a *Agent) add(e *endpoint) error {
	var err error
	v := e.verdicts.Load()
	if e.kernel, err = a.kernel.AddEndpoint(a.endpointConfig(e), v.kernel(a.resolved, e.w.Labels)); err != nil {
		return fmt.Errorf("put workload %s under policy: %w", e.w.Name, err)
	}
	e.written = v
	a.watchProcesses(e)
	a.log.Info("workload is under policy", "workload", e.w.Name, "endpoint", e.id, "identity", e.identity)
	return nil
}

func (a *Agent) endpointConfig(e *endpoint) redirect.EndpointConfig {
	cfg := redirect.EndpointConfig{ID: e.id, Identity: e.identity}
	path := e.w.path(a.cfg.CgroupRoot)
	if e.w.Cgroup != "" {
		cfg.Cgroup, cfg.CgroupDir = e.handle, path
	} else {
		cfg.Netns = path
	}
	return cfg
}

// drop takes an endpoint out of force. The caller holds a.mu.
func (a *Agent) drop(e *endpoint) error {
	e.end()
	delete(a.byID, e.id)
	a.ids.Release(e.identity)
	if e.kernel == nil {
		return nil
	}
	return e.kernel.Remove()
}
