//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/testbed"
	"golang.org/x/sys/unix"
)

func openRoot(t *testing.T) *Root {
	t.Helper()
	testbed.NeedRoot(t)
	root, err := OpenRoot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// scratch makes a cgroup that goes with the test.
func scratch(t *testing.T, root *Root) string {
	t.Helper()
	own, err := root.Of("self")
	if err != nil {
		t.Fatal(err)
	}
	group, err := root.Create(own, fmt.Sprintf("test-%d-%s", os.Getpid(), t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(root.Kill(group, 10*time.Second), root.Remove(group)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
	return group
}

// start starts a process in a cgroup that does not end by itself.
func start(t *testing.T, root *Root, group string) *exec.Cmd {
	t.Helper()
	dir, err := root.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

func TestKillAndRemove(t *testing.T) {
	root := openRoot(t)
	group := scratch(t, root)
	below := path.Join(group, "a")
	if err := os.MkdirAll(root.Path(path.Join(below, "b")), 0o755); err != nil {
		t.Fatal(err)
	}
	one, two := start(t, root, group), start(t, root, path.Join(below, "b"))

	if busy, err := root.Populated(group); err != nil || !busy {
		t.Errorf("populated: %v, %v", busy, err)
	}
	pids, err := root.Procs(group)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*exec.Cmd{one, two} {
		if pid := strconv.Itoa(p.Process.Pid); !strings.Contains(" "+strings.Join(pids, " ")+" ", " "+pid+" ") {
			t.Errorf("process %s is not in %v", pid, pids)
		}
	}
	if got, err := root.Of(strconv.Itoa(one.Process.Pid)); err != nil || got != group {
		t.Errorf("cgroup of the process: %s, %v", got, err)
	}
	if err := root.Remove(group); !errors.Is(err, unix.EBUSY) {
		t.Errorf("remove with processes: %v, want EBUSY", err)
	}
	if err := root.Kill(group, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if busy, err := root.Populated(group); err != nil || busy {
		t.Errorf("after kill: populated %v, %v", busy, err)
	}
	for range 2 { // the second time it is gone already
		if err := root.Remove(group); err != nil {
			t.Error(err)
		}
	}
	if busy, err := root.Populated(group); err != nil || busy {
		t.Errorf("after remove: populated %v, %v", busy, err)
	}
}

// TestBelowThreaded: a group below a threaded one cannot hold processes; the run's then
// goes below the root.
func TestBelowThreaded(t *testing.T) {
	root := openRoot(t)
	group := scratch(t, root)
	threaded := path.Join(group, "threaded")
	if err := os.Mkdir(root.Path(threaded), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root.Path(threaded), "cgroup.type"), []byte("threaded"), 0); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("test-%d-fallback", os.Getpid())
	got, err := root.Create(threaded, name)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Remove(got)
	if got != "/"+name {
		t.Errorf("made %s, want /%s", got, name)
	}
	if _, err := os.Stat(root.Path(path.Join(threaded, name))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left below the threaded one: %v", err)
	}
}

func TestRootStays(t *testing.T) {
	root := openRoot(t)
	for _, group := range []string{"", "/", "//", "/x/.."} {
		if err := root.Remove(group); err == nil || !strings.Contains(err.Error(), "root") {
			t.Errorf("remove %q: %v", group, err)
		}
		if err := root.Kill(group, time.Second); err == nil || !strings.Contains(err.Error(), "root") {
			t.Errorf("kill %q: %v", group, err)
		}
	}
}
