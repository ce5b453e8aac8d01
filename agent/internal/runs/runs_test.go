//go:build linux

package runs

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weir-proxy/weir/agent/internal/cgroup"
	"github.com/weir-proxy/weir/internal/testbed"
)

// books are on a BPF file system of their own.
func books(t *testing.T) Books {
	t.Helper()
	testbed.NeedRoot(t)
	root, err := cgroup.OpenRoot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return Books{BPFFS: dir, Root: root}
}

// die lets go of a run as the kernel does when its weir is killed.
func die(r *Run) {
	r.entry.Close()
	r.Dir.Close()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestCleanEnd(t *testing.T) {
	b := books(t)
	r, err := b.Start()
	if err != nil {
		t.Fatal(err)
	}
	if dead, living, err := b.List(); err != nil || len(dead) != 0 || living != 1 {
		t.Errorf("while it runs: %v dead, %d living, %v", dead, living, err)
	}
	if !exists(b.pins(r.ID)) || !exists(b.Root.Path(r.Group)) {
		t.Error("no directory for pins, or no cgroup")
	}
	if n, err := r.Kill(); n != 0 || err != nil {
		t.Errorf("kill nothing: %d, %v", n, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(b.BPFFS, "weir*"))
	if err != nil || len(left) != 0 || exists(b.Root.Path(r.Group)) {
		t.Errorf("left behind: %v, cgroup %v, %v", left, exists(b.Root.Path(r.Group)), err)
	}
}

// TestSweep: what died at any point of its life is swept up by the next start, living
// runs are not touched.
func TestSweep(t *testing.T) {
	b := books(t)
	living, err := b.Start()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		undo func(*Run) // what had not happened yet, or no longer exists
	}{
		{"in full", func(*Run) {}},
		{"with pins", func(r *Run) {
			if err := os.Mkdir(filepath.Join(b.pins(r.ID), "below"), 0o700); err != nil {
				t.Fatal(err)
			}
		}},
		{"without pins", func(r *Run) { os.Remove(b.pins(r.ID)) }},
		{"without cgroup", func(r *Run) { b.Root.Remove(r.Group) }},
		{"before its cgroup was written down", func(r *Run) {
			b.Root.Remove(r.Group)
			os.Remove(filepath.Join(b.entry(r.ID), link))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := b.Start()
			if err != nil {
				t.Fatal(err)
			}
			c.undo(r)
			die(r)
			if dead, n, err := b.List(); err != nil || len(dead) != 1 || dead[0].ID != r.ID || n != 1 {
				t.Errorf("list: %v, %d living, %v", dead, n, err)
			}
			next, err := b.Start()
			if err != nil {
				t.Fatal(err)
			}
			if exists(b.entry(r.ID)) || exists(b.pins(r.ID)) || exists(b.Root.Path(r.Group)) {
				t.Error("not swept up")
			}
			if err := next.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if !exists(b.entry(living.ID)) || !exists(b.pins(living.ID)) || !exists(b.Root.Path(living.Group)) {
		t.Error("a living run was swept up")
	}
	if err := living.Close(); err != nil {
		t.Error(err)
	}
}

// TestForgedEntry: an entry cannot make the sweep remove somebody else's cgroup.
func TestForgedEntry(t *testing.T) {
	b := books(t)
	for _, id := range []string{"1-a", "2-b"} {
		if err := os.MkdirAll(b.entry(id), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/", filepath.Join(b.entry("1-a"), link)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Start(); err == nil || !strings.Contains(err.Error(), "not its own") {
		t.Errorf("start: %v", err)
	}
}

// TestTogether starts and ends runs at the same time, some of which die.
func TestTogether(t *testing.T) {
	b := books(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 {
				r, err := b.Start()
				if err != nil {
					t.Error(err)
					return
				}
				if (i+j)%3 == 0 {
					die(r)
				} else if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r, err := b.Start()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(b.BPFFS, "weir*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
