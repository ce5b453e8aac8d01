//go:build linux

// Package cgroup finds the root of cgroup v2 and makes, empties and removes
// groups below it.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-proxy/weir/agent/internal/mounts"
)

// Errors of OpenRoot.
var (
	ErrNoCgroup2 = errors.New("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup (or /sys/fs/cgroup/unified beside version 1)")
	ErrNamespace = errors.New("this is a cgroup namespace, as in a container: its cgroup v2 shows only a part of the tree: run weir on the host, or start the container with --privileged --cgroupns=host")
)

// Root is the root of the unified hierarchy. Groups below it are named by their
// path from there, "/system.slice/orders.service"; "/" is the root itself.
type Root struct {
	dir  *os.File
	path string
}

// OpenRoot finds the root of cgroup v2: where it is mounted here, where the host
// has it mounted, or by a mount of its own that nobody else sees. The caller closes it.
func OpenRoot() (*Root, error) {
	subtree := false
	for _, pid := range []string{"self", mounts.Host()} {
		list, err := mounts.Of(pid, "cgroup2")
		if err != nil {
			continue // without privileges, another process's mounts cannot be read
		}
		for _, m := range list {
			r, err := open(mounts.Root(pid) + m.Point)
			if err == nil {
				return r, nil
			}
			subtree = subtree || errors.Is(err, ErrNamespace)
		}
	}
	if subtree {
		return nil, ErrNamespace
	}
	return mountRoot()
}

// rootInode is the inode of the hierarchy's real root (Linux: kernfs gives it id 1).
const rootInode = 1

func open(path string) (*Root, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r := &Root{dir: dir, path: path}
	if err := r.check(); err != nil {
		dir.Close()
		return nil, err
	}
	return r, nil
}

func (r *Root) check() error {
	var fsys unix.Statfs_t
	if err := unix.Fstatfs(int(r.dir.Fd()), &fsys); err != nil {
		return err
	}
	if fsys.Type != unix.CGROUP2_SUPER_MAGIC {
		return ErrNoCgroup2 // covered by another mount
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(r.dir.Fd()), &st); err != nil {
		return err
	}
	if st.Ino != rootInode {
		return ErrNamespace
	}
	return nil
}

// mountRoot mounts cgroup v2 without attaching it to any path.
func mountRoot() (*Root, error) {
	fsfd, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("%w (%v)", ErrNoCgroup2, err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return nil, fmt.Errorf("%w (%v)", ErrNoCgroup2, err)
	}
	mfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("%w (%v)", ErrNoCgroup2, err)
	}
	r := &Root{path: fmt.Sprintf("/proc/self/fd/%d", mfd), dir: os.NewFile(uintptr(mfd), "cgroup2")}
	if err := r.check(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close lets go of the root.
func (r *Root) Close() error { return r.dir.Close() }

// Path is a path to a group that this process can use as long as the root is open.
func (r *Root) Path(group string) string { return r.path + path.Clean("/"+group) }

// Of returns the group of a process, "self" or its id.
func (r *Root) Of(pid string) (string, error) {
	f, err := os.Open("/proc/" + pid + "/cgroup")
	if err != nil {
		return "", fmt.Errorf("find cgroup of process %s: %w", pid, err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if group, ok := strings.CutPrefix(sc.Text(), "0::"); ok {
			if strings.HasPrefix(group, "/..") {
				return "", ErrNamespace
			}
			return strings.TrimSuffix(group, " (deleted)"), nil
		}
	}
	return "", fmt.Errorf("find cgroup of process %s: %w", pid, ErrNoCgroup2)
}

// Open opens the directory of a group.
func (r *Root) Open(group string) (*os.File, error) {
	f, err := os.Open(r.Path(group))
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	return f, nil
}

// Create makes the group name below parent, or below the root where parent's
// children cannot hold processes, as those of a threaded group cannot. It returns
// the new group.
func (r *Root) Create(parent, name string) (string, error) {
	group, err := r.create(parent, name)
	if errors.Is(err, errThreaded) {
		return r.create("/", name)
	}
	return group, err
}

var errThreaded = errors.New("a cgroup below a threaded one holds no processes")

func (r *Root) create(parent, name string) (string, error) {
	group := path.Join(parent, name)
	dir := r.Path(group)
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, unix.EROFS) {
			err = fmt.Errorf("%w: cgroup v2 is mounted read-only, as in an unprivileged container", err)
		}
		return "", fmt.Errorf("make cgroup: %w", err)
	}
	typ, err := os.ReadFile(filepath.Join(dir, "cgroup.type"))
	if err == nil && strings.TrimSpace(string(typ)) != "domain" {
		err = errThreaded
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("make cgroup: %w", err), os.Remove(dir))
	}
	return group, nil
}

// Populated reports whether a process lives in the group or below. A group that is
// gone is not populated.
func (r *Root) Populated(group string) (bool, error) {
	events, err := os.ReadFile(filepath.Join(r.Path(group), "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read cgroup: %w", err)
	}
	return populated(events), nil
}

func populated(events []byte) bool {
	return strings.Contains("\n"+string(events), "\npopulated 1")
}

// Procs lists the processes of a group and those below it.
func (r *Root) Procs(group string) ([]string, error) {
	var pids []string
	err := filepath.WalkDir(r.Path(group), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if d.Name() != "cgroup.procs" {
			return nil
		}
		list, err := os.ReadFile(p)
		if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
		pids = append(pids, strings.Fields(string(list))...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup: %w", err)
	}
	return pids, nil
}

// Kill kills every process in the group and below, and those they are just making
// (cgroup.kill, Linux 5.14), and waits until none is left, at most for patience.
func (r *Root) Kill(group string, patience time.Duration) error {
	if path.Clean("/"+group) == "/" {
		return errors.New("kill processes of cgroup: not those of the root")
	}
	dir := r.Path(group)
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil {
		return fmt.Errorf("kill processes of cgroup: %w", err)
	}
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return fmt.Errorf("kill processes of cgroup: %w", err)
	}
	defer f.Close()
	end := time.Now().Add(patience)
	for {
		buf := make([]byte, 256)
		n, err := f.ReadAt(buf, 0)
		if n == 0 {
			return fmt.Errorf("kill processes of cgroup: %w", err)
		}
		if !populated(buf[:n]) {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("kill processes of cgroup %s: some are still there after %v", group, patience)
		}
		// kernfs wakes a poll for POLLPRI when the file has changed since it was read.
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("kill processes of cgroup: %w", err)
		}
	}
}

// Remove removes an empty group and those below it. One that is gone is removed.
func (r *Root) Remove(group string) error {
	if path.Clean("/"+group) == "/" {
		return errors.New("remove cgroup: the root stays")
	}
	var dirs []string
	err := filepath.WalkDir(r.Path(group), func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return err
	})
	for i := len(dirs) - 1; err == nil && i >= 0; i-- {
		if err = unix.Rmdir(dirs[i]); errors.Is(err, unix.ENOENT) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("remove cgroup %s: %w", group, err)
	}
	return nil
}
