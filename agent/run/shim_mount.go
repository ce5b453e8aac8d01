//go:build linux

package run

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/weir-proxy/weir/agent/internal/mounts"
)

// controlTypes are file systems through which root, by file permissions alone, has
// the kernel act on the whole machine.
var controlTypes = map[string]bool{
	"sysfs": true, "debugfs": true, "tracefs": true, "securityfs": true, "configfs": true, "efivarfs": true,
	"pstore": true, "binfmt_misc": true, "selinuxfs": true, "smackfs": true, "resctrl": true, "nfsd": true,
}

// procControl is the same in procfs.
var procControl = []string{"sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi", "mtrr"}

// confineMounts makes the mount namespace of this process, which must be its own,
// what the command may see: cgroups read-only, BPF file systems hidden, and for root
// the kernel's control files read-only.
func confineMounts(root bool) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// Without a cgroup namespace of its own, nobody can mount cgroups; the limit holds
	// for every user namespace below this one.
	if err := os.WriteFile("/proc/sys/user/max_cgroup_namespaces", []byte("0"), 0); err != nil {
		return fmt.Errorf("forbid cgroup namespaces: %w", err)
	}
	list, err := mounts.Of("self")
	if err != nil {
		return err
	}
	for _, m := range list {
		var err error
		switch {
		case m.Type == "cgroup" || m.Type == "cgroup2" || root && controlTypes[m.Type]:
			err = onMount(m, makeReadOnly)
		case m.Type == "bpf":
			err = onMount(m, cover)
		case root && m.Type == "proc" && m.Root == "/":
			err = onMount(m, guardProc)
		}
		if err != nil {
			return err
		}
	}
	return checkConfined()
}

// onMount calls f with the path of a mount point, unless another mount covers it:
// nobody can uncover it again.
func onMount(m mounts.Mount, f func(path string) error) error {
	visible, err := onTop(m)
	if err != nil || !visible {
		return err
	}
	if err := f(m.Point); err != nil {
		return fmt.Errorf("%s: %w", m.Point, err)
	}
	return nil
}

// onTop reports whether the path of the mount point leads to this mount.
func onTop(m mounts.Mount) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, m.Point, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return false, nil // a mount above covers it
	case err != nil:
		return false, fmt.Errorf("look at mount %s: %w", m.Point, err)
	case st.Mask&unix.STATX_MNT_ID == 0:
		return false, fmt.Errorf("look at mount %s: this kernel does not tell mounts apart (statx, Linux 5.8)", m.Point)
	}
	return st.Mnt_id == uint64(m.ID), nil
}

func makeReadOnly(path string) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, &attr); err != nil {
		return fmt.Errorf("make mount read-only: %w", err)
	}
	return nil
}

func cover(path string) error {
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("none", path, "tmpfs", flags, "mode=0555,size=4k,nr_inodes=1"); err != nil {
		return fmt.Errorf("hide BPF file system: %w", err)
	}
	return nil
}

func guardProc(proc string) error {
	for _, name := range procControl {
		p := path.Join(proc, name)
		err := unix.Mount(p, p, "", unix.MS_BIND, "")
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("bind %s: %w", p, err)
		}
		if err := makeReadOnly(p); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

// checkConfined looks at the outcome once more: each mount that can be reached, and
// the working directory, which stays where it is when a mount covers it.
func checkConfined() error {
	list, err := mounts.Of("self", "cgroup", "cgroup2", "bpf")
	if err != nil {
		return err
	}
	for _, m := range list {
		visible, err := onTop(m)
		if err != nil {
			return err
		}
		if visible && (m.Type == "bpf" || !m.ReadOnly) {
			return fmt.Errorf("%s mount at %s could not be taken from the command", m.Type, m.Point)
		}
	}
	var fsys unix.Statfs_t
	if err := unix.Statfs(".", &fsys); err != nil {
		return fmt.Errorf("look at working directory: %w", err)
	}
	if fsys.Type == unix.BPF_FS_MAGIC {
		return errors.New("the working directory is in the BPF file system: start weir somewhere else")
	}
	return nil
}
