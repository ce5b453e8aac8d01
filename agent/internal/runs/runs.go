//go:build linux

// Package runs keeps the books of `weir run`: which runs there are, which are
// alive, and what dead ones left behind.
//
// A run has an ID, a cgroup named after it, pinned BPF objects in
// BPFFS/weir/ID, and an entry in BPFFS/weir-runs/ID, a directory that holds
// nothing but a symbolic link to the cgroup. The run's weir holds a flock(2) on the
// entry for as long as it lives; process ids, which come again, play no part.
// The entries are where the run's command cannot reach them.
package runs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-proxy/weir/agent/internal/cgroup"
)

const (
	prefix  = "weir-run-" // of the cgroups' names
	pins    = "weir"      // below bpffs
	entries = "weir-runs" // below bpffs
	link    = "cgroup"    // in an entry
)

// Patience is how long killed processes get to be gone.
const Patience = 10 * time.Second

// Books are the runs of this machine.
type Books struct {
	BPFFS string
	Root  *cgroup.Root
}

// Run is a living run.
type Run struct {
	ID    string
	Group string   // the run's cgroup
	Dir   *os.File // its directory

	books Books
	entry *os.File // locked
}

// Start sweeps up after dead runs and enters a new one, with a cgroup below that
// of this process and an empty directory for its pins. Dead runs of which processes
// are still alive stay; List tells them.
func (b Books) Start() (_ *Run, err error) {
	unlock, err := b.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := b.sweep(); err != nil {
		return nil, err
	}
	var random [4]byte
	rand.Read(random[:])
	r := &Run{ID: fmt.Sprintf("%d-%x", os.Getpid(), random), books: b}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.forget())
		}
	}()
	own, err := b.Root.Of("self")
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(b.entry(r.ID), 0o700); err != nil {
		return nil, fmt.Errorf("enter run: %w", err)
	}
	// Somebody who lists runs may hold the lock for a moment.
	if r.entry, err = lockDir(b.entry(r.ID), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("enter run: %w", err)
	}
	// Written down before it is made: what is made is found again.
	planned := path.Join(own, prefix+r.ID)
	if err := b.writeLink(r.ID, planned); err != nil {
		return nil, err
	}
	if r.Group, err = b.Root.Create(own, prefix+r.ID); err != nil {
		return nil, err
	}
	if r.Group != planned {
		if err := b.writeLink(r.ID, r.Group); err != nil {
			return nil, err
		}
	}
	if r.Dir, err = b.Root.Open(r.Group); err != nil {
		return nil, err
	}
	if err := b.makePins(r.ID); err != nil {
		return nil, fmt.Errorf("enter run: %w", err)
	}
	return r, nil
}

// writeLink writes down the cgroup of a run.
func (b Books) writeLink(id, group string) error {
	at := filepath.Join(b.entry(id), link)
	os.Remove(at)
	if err := os.Symlink(group, at); err != nil {
		return fmt.Errorf("enter run: %w", err)
	}
	return nil
}

// readLink returns the cgroup of a run, "" if it has none yet.
func (b Books) readLink(id string) (string, error) {
	group, err := os.Readlink(filepath.Join(b.entry(id), link))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("list runs: %w", err)
	}
	if path.Base(group) != prefix+id {
		return "", fmt.Errorf("list runs: %s names cgroup %s, which is not its own: remove it by hand", b.entry(id), group)
	}
	return group, nil
}

// makePins makes the directory for pins. A run that ends removes the directory
// above when it finds it empty, without any lock: try again.
func (b Books) makePins(id string) error {
	var err error
	for range 100 {
		if err = os.MkdirAll(b.pins(id), 0o700); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

// Kill kills what is left of the run's processes and returns how many there were.
func (r *Run) Kill() (int, error) {
	if busy, err := r.books.Root.Populated(r.Group); err != nil || !busy {
		return 0, err
	}
	pids, err := r.books.Root.Procs(r.Group)
	return len(pids), errors.Join(err, r.books.Root.Kill(r.Group, Patience))
}

// Close removes all that the run left on the machine. Where that fails, the next
// Start tries again.
func (r *Run) Close() error {
	unlock, err := r.books.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return r.forget()
}

func (r *Run) forget() error {
	if r.Dir != nil {
		r.Dir.Close()
	}
	var err error
	if r.Group != "" {
		err = r.books.Root.Remove(r.Group)
	}
	if err == nil && r.entry != nil {
		err = r.books.remove(r.ID)
	}
	if r.entry != nil {
		r.entry.Close()
	}
	return err
}

func (b Books) pins(id string) string  { return filepath.Join(b.BPFFS, pins, id) }
func (b Books) entry(id string) string { return filepath.Join(b.BPFFS, entries, id) }

// remove removes pins and entry of a run, in this order: a run with an entry is
// found again.
func (b Books) remove(id string) error {
	if err := os.RemoveAll(b.pins(id)); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	os.Remove(filepath.Join(b.BPFFS, pins)) // fails while others have theirs in it
	if err := os.RemoveAll(b.entry(id)); err != nil {
		return fmt.Errorf("remove entry of run: %w", err)
	}
	return nil
}

// lock makes this process the only one that enters or removes runs.
func (b Books) lock() (unlock func(), err error) {
	dir := filepath.Join(b.BPFFS, entries)
	for {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("keep the books of runs: %w", err)
		}
		f, err := lockDir(dir, unix.LOCK_EX)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the last run removed it
		}
		if err != nil {
			return nil, fmt.Errorf("keep the books of runs: %w", err)
		}
		return func() {
			os.Remove(dir) // fails while there are runs
			f.Close()
		}, nil
	}
}

// lockDir opens and locks a directory; it is gone if that is fs.ErrNotExist.
func lockDir(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		// Somebody may have removed it, and even made it again, while we waited.
		var ours, now os.FileInfo
		if ours, err = f.Stat(); err == nil {
			now, err = os.Stat(dir)
		}
		if err == nil && !os.SameFile(ours, now) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Dead is a run whose weir is gone.
type Dead struct {
	ID    string
	Group string   // "" if it died before it had one
	PIDs  []string // processes that are still alive, cut off from the network
}

// List finds the dead runs, and how many others are alive. It changes nothing.
func (b Books) List() (dead []Dead, living int, err error) {
	list, err := os.ReadDir(filepath.Join(b.BPFFS, entries))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("list runs: %w", err)
	}
	for _, e := range list {
		f, err := lockDir(b.entry(e.Name()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			living++
			continue
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, 0, fmt.Errorf("list runs: %w", err)
		}
		f.Close()
		d := Dead{ID: e.Name()}
		if d.Group, err = b.readLink(d.ID); err != nil {
			return nil, 0, err
		}
		if d.Group != "" {
			d.PIDs, err = b.Root.Procs(d.Group)
			if err != nil {
				return nil, 0, err
			}
		}
		dead = append(dead, d)
	}
	return dead, living, nil
}

// sweep removes dead runs, except those with processes: these stay judged by the
// pinned programs, which let nothing through any more. The caller holds the lock.
func (b Books) sweep() error {
	dead, _, err := b.List()
	if err != nil {
		return err
	}
	for _, d := range dead {
		if len(d.PIDs) > 0 {
			continue
		}
		if d.Group != "" {
			err := b.Root.Remove(d.Group)
			if errors.Is(err, unix.EBUSY) {
				continue // a process of it is exiting, which cgroup.procs no longer shows: the next start removes it
			}
			if err != nil {
				return fmt.Errorf("sweep up dead run: %w", err)
			}
		}
		if err := b.remove(d.ID); err != nil {
			return fmt.Errorf("sweep up dead run: %w", err)
		}
	}
	return nil
}
