//go:build linux

package redirect

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/weir-proxy/weir/bpf"
)

// findInherited writes which listening sockets are held by processes of cgroup
// endpoints. The kernel asks it only about sockets that no endpoint opened. The caller
// holds d.mu.
func (d *Datapath) findInherited() error {
	want := map[bpf.WeirLportKey]uint32{}
	for _, p := range d.places {
		holders := map[uint32]uint32{} // inode of the socket -> endpoint
		for _, e := range d.endpoints {
			if e.place == p && e.cfg.CgroupDir != "" {
				for _, inode := range socketsOf(e.cfg.CgroupDir) {
					holders[inode] = e.cfg.ID
				}
			}
		}
		if len(holders) == 0 {
			continue
		}
		socks, err := p.listNow()
		if errors.Is(err, errNobodyInside) {
			continue
		}
		if err != nil {
			return err
		}
		for _, s := range socks {
			if id := holders[s.inode]; id != 0 {
				want[lportKey(p.ns.cookie, s.local)] = id
			}
		}
	}
	for k, id := range want {
		if d.inherited[k] == id {
			continue
		}
		if err := d.objs.Inherited.Put(k, id); err != nil {
			return fmt.Errorf("write inherited socket: %w", err)
		}
	}
	for k := range d.inherited {
		if _, ok := want[k]; ok {
			continue
		}
		if err := d.objs.Inherited.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove inherited socket: %w", err)
		}
	}
	d.inherited = want
	return nil
}

// socketsOf lists the inodes of the sockets that processes of a cgroup, and of those
// below it, hold. Processes that go meanwhile hold none.
func socketsOf(cgroup string) []uint32 {
	var list []uint32
	filepath.WalkDir(cgroup, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil
		}
		procs, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for _, pid := range strings.Fields(string(procs)) {
			fds, _ := os.ReadDir("/proc/" + pid + "/fd")
			for _, fd := range fds {
				if inode, ok := socketInode("/proc/" + pid + "/fd/" + fd.Name()); ok {
					list = append(list, inode)
				}
			}
		}
		return nil
	})
	return list
}

// socketInode is the number of the socket behind a link of /proc/pid/fd.
func socketInode(link string) (inode uint32, ok bool) {
	target, _ := os.Readlink(link)
	n, _ := fmt.Sscanf(target, "socket:[%d]", &inode)
	return inode, n == 1
}

// endpointOfCgroup finds the endpoint of a socket by its cgroup or the nearest one
// above; 0 none. The caller holds d.mu.
func (d *Datapath) endpointOfCgroup(id uint64) uint32 {
	for _, e := range d.endpoints {
		if e.cfg.Cgroup != 0 && e.cfg.Cgroup == id {
			return e.cfg.ID
		}
	}
	return d.belowEndpoint(id)
}

// belowEndpoint looks for a cgroup's number in the trees below the endpoints'.
func (d *Datapath) belowEndpoint(id uint64) uint32 {
	for _, e := range d.endpoints {
		if e.cfg.Cgroup == 0 || e.cfg.CgroupDir == "" {
			continue
		}
		found := false
		filepath.WalkDir(e.cfg.CgroupDir, func(path string, entry os.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return nil
			}
			if fi, err := os.Stat(path); err == nil && fi.Sys().(*syscall.Stat_t).Ino == id {
				found = true
				return filepath.SkipAll
			}
			return nil
		})
		if found {
			return e.cfg.ID
		}
	}
	return 0
}
