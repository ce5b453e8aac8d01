//go:build linux

package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Looking after workloads: something may be missed by any event, so everything is
// looked at every sweepEvery; where an event says that something happened, sooner.
const (
	sweepEvery  = 10 * time.Second
	resyncEvery = 9 * time.Second       // at every sweep that is not for an event
	settle      = 50 * time.Millisecond // after an event
	again       = time.Second           // while a workload is going
)

// lookAfter follows workloads as they come and go until ctx is done.
func (a *Agent) lookAfter(ctx context.Context) {
	events := a.watchPaths(ctx)
	timer := time.NewTimer(sweepEvery)
	defer timer.Stop()
	due := time.Now().Add(sweepEvery)
	within := func(d time.Duration) {
		// Events that keep coming put nothing off.
		if at := time.Now().Add(d); at.Before(due) {
			due = at
			timer.Reset(d)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.moved:
			a.mu.Lock()
			err := a.syncAddresses()
			a.mu.Unlock()
			if err != nil {
				a.log.Error("update addresses of workloads", "error", err)
			}
		case <-a.recheckDirect:
			a.revokeDirect()
		case <-events:
			within(settle)
		case <-a.soon:
			within(again)
		case <-timer.C:
			wait := sweepEvery
			if a.sweep() || a.kernel.Unsettled() {
				wait = again
			}
			due = time.Now().Add(wait)
			timer.Reset(wait)
		}
	}
}

// sweep reconciles, forgets what is dead, and reports whether something is dying.
func (a *Agent) sweep() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.reconcile(); err != nil {
		a.log.Error("look after workloads", "error", err)
	}
	if a.weighAgain() {
		if err := a.refresh(); err != nil {
			a.log.Error("put policies in force", "error", err)
		}
	}
	// A workload that starts waits for a.mu, and may connect meanwhile.
	look := a.kernel.Settle
	if time.Since(a.resynced) >= resyncEvery {
		look, a.resynced = a.kernel.Resync, time.Now()
	}
	if err := look(); err != nil {
		a.log.Error("look after listening sockets", "error", err)
	}
	if len(a.dying) == 0 {
		return false
	}
	alive := liveNamespaces()
	kept := a.dying[:0]
	for _, e := range a.dying {
		if e.w.Cgroup == "" && alive[e.handle] {
			e.missed = 0
		} else {
			e.missed++ // a process may have been between two places
		}
		if e.missed < 2 {
			kept = append(kept, e)
			continue
		}
		if err := a.drop(e); err != nil {
			a.log.Error("forget workload", "workload", e.w.Name, "error", err)
		}
		a.log.Info("workload is gone", "workload", e.w.Name)
	}
	clear(a.dying[len(kept):])
	a.dying = kept
	return len(a.dying) > 0
}

// mayLiveOn reports whether somebody of an endpoint whose path is gone may live on.
// A cgroup that is gone held nobody.
func mayLiveOn(e *endpoint) bool { return e.w.Cgroup == "" }

// liveNamespaces are the network namespaces that a task is in, or that are mounted
// somewhere, by inode.
func liveNamespaces() map[uint64]bool {
	live := map[uint64]bool{}
	tasks, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*/ns/net")
	for _, p := range tasks {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil {
			live[st.Ino] = true
		}
	}
	b, _ := os.ReadFile("/proc/self/mountinfo")
	for l := range strings.Lines(string(b)) {
		// ... net:[4026532281] /run/netns/a ... - nsfs nsfs rw
		if _, rest, ok := strings.Cut(l, " net:["); ok {
			var ino uint64
			for _, c := range rest {
				if c < '0' || c > '9' {
					break
				}
				ino = ino*10 + uint64(c-'0')
			}
			live[ino] = true
		}
	}
	return live
}

// watchPaths sends when a namespace or cgroup may have come or gone at one of the
// workloads' paths. Without inotify the sweep sees it.
func (a *Agent) watchPaths(ctx context.Context) <-chan struct{} {
	events := make(chan struct{}, 1)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		a.log.Warn("watch namespaces: workloads are seen within seconds only", "error", err)
		return events
	}
	f := os.NewFile(uintptr(fd), "inotify")
	a.mu.Lock()
	a.inotify, a.watched = fd, map[string]bool{}
	a.watchDirs()
	a.mu.Unlock()
	context.AfterFunc(ctx, func() {
		a.mu.Lock()
		a.watched = nil
		a.mu.Unlock()
		f.Close()
	})
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, err := f.Read(buf); err != nil {
				return
			}
			poke(events)
		}
	}()
	return events
}

// watchDirs watches where workloads come and go. A directory that is not there yet is
// tried again at the next sweep. The caller holds a.mu.
func (a *Agent) watchDirs() {
	if a.watched == nil {
		return
	}
	for _, w := range a.wanted {
		dir := filepath.Dir(w.path(a.cfg.CgroupRoot))
		if w.PID != 0 || a.watched[dir] {
			continue
		}
		// Attributes change when something is mounted on a file there.
		const what = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_ATTRIB | unix.IN_CLOSE_WRITE
		if _, err := unix.InotifyAddWatch(a.inotify, dir, what); err == nil {
			a.watched[dir] = true
		}
	}
	for _, e := range a.active {
		a.watchProcesses(e)
	}
}

// watchProcesses watches for the first process of a cgroup: it may bring listening
// sockets that somebody else opened. The caller holds a.mu.
func (a *Agent) watchProcesses(e *endpoint) {
	if a.watched == nil || e.w.Cgroup == "" || e.watched {
		return
	}
	events := filepath.Join(e.w.path(a.cfg.CgroupRoot), "cgroup.events")
	_, err := unix.InotifyAddWatch(a.inotify, events, unix.IN_MODIFY)
	e.watched = err == nil
}
