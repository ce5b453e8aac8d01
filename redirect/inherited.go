//go:build linux

package redirect

import (
	"encoding/binary"
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
// endpoints. The kernel asks it only about sockets that no endpoint opened. Those that
// it finds for the first time are returned. The caller holds d.mu.
func (d *Datapath) findInherited() (found map[bpf.WeirLportKey]uint32, err error) {
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
			return nil, err
		}
		for _, s := range socks {
			if id := holders[s.inode]; id != 0 {
				want[lportKey(p.ns.cookie, s.local)] = id
			}
		}
	}
	found = map[bpf.WeirLportKey]uint32{}
	for k, id := range want {
		if d.inherited[k] == id {
			continue
		}
		if err := d.objs.Inherited.Put(k, id); err != nil {
			return nil, fmt.Errorf("write inherited socket: %w", err)
		}
		found[k] = id
	}
	for k := range d.inherited {
		if _, ok := want[k]; ok {
			continue
		}
		if err := d.objs.Inherited.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("remove inherited socket: %w", err)
		}
	}
	d.inherited = want
	return found, nil
}

// syncInherited finds listening sockets that endpoints hold without having opened them.
// What was accepted before one was found nobody has judged. It is judged at the next
// Resync, if the socket is the endpoint's then as well: a service manager's child holds
// everything that its parent holds before it becomes the service. The caller holds d.mu.
func (d *Datapath) syncInherited() error {
	before := d.found
	var err error
	if d.found, err = d.findInherited(); err != nil {
		return err
	}
	var errs []error
	for k, id := range before {
		l, err := d.entry(k)
		if err != nil {
			errs = append(errs, err)
		}
		if d.inherited[k] == id && l.Endpoint == 0 && d.places[k.Netns] != nil {
			errs = append(errs, d.places[k.Netns].endUnjudged(k, id))
		}
	}
	return errors.Join(errs...)
}

// Unsettled reports whether Resync is to be called again in a moment, because it found
// something that it has to see twice.
func (d *Datapath) Unsettled() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.found) > 0
}

// endUnjudged ends the connections at a listening socket of an endpoint that its policy
// does not let in. The caller holds d.mu.
func (p *place) endUnjudged(k bpf.WeirLportKey, id uint32) error {
	own, err := ownSockets()
	if err != nil {
		return err
	}
	return p.ns.do(func() error {
		socks, err := listTCP(tcpConnected)
		if err != nil {
			return err
		}
		for _, s := range socks {
			local := lportKey(k.Netns, s.local)
			if own[s.inode] || local.Port != k.Port || local != k && !unwords(k.Local.Ip).IsUnspecified() {
				continue
			}
			r := bpf.WeirJudgeRequest{Endpoint: id}
			r.K = bpf.WeirFlowKey{Netns: k.Netns, Lport: s.remote.Port(), Rport: s.local.Port()}
			r.K.Local.Ip, r.K.Remote.Ip = words(s.remote.Addr()), local.Local.Ip
			action, err := p.d.judge(r)
			if err != nil {
				return err
			}
			if action == bpf.WeirActionACTION_ALLOW {
				continue
			}
			p.d.cfg.Log.Warn("end connection that came before its listening socket was known", "from", s.remote, "to", s.local)
			if err := destroy(s); err != nil {
				p.d.cfg.Log.Debug("end connection", "error", err)
			}
		}
		return nil
	})
}

// judge asks the kernel what it would say of a connection.
func (d *Datapath) judge(r bpf.WeirJudgeRequest) (bpf.WeirAction, error) {
	frame := make([]byte, 14, 128) // an Ethernet header
	frame, err := binary.Append(frame, binary.NativeEndian, r)
	if err != nil {
		return 0, fmt.Errorf("judge connection: %w", err)
	}
	action, err := d.objs.WeirJudge.Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		return 0, fmt.Errorf("judge connection: %w", err)
	}
	return bpf.WeirAction(action), nil
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
