//go:build linux

package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink/nl"
	"github.com/weir-proxy/weir/bpf"
	"golang.org/x/sys/unix"
)

// seed is a listening socket that was there before our programs: they see neither
// its listen() nor its end.
type seed struct {
	key    bpf.WeirLportKey
	cookie uint64
}

// A socket as sock_diag(7) tells of it.
type listenSocket struct {
	local  netip.AddrPort
	cookie uint64
	cgroup uint64
	inode  uint32
	v6only bool
}

// seedListening tells the kernel who listens in this namespace already, and which
// of them are endpoints' sockets. The caller holds d.mu.
func (p *place) seedListening() error {
	socks := p.others(p.first)
	if p.seeds != nil { // not the first endpoint here
		var err error
		if socks, err = p.listNow(); err != nil {
			return err
		}
	}
	if p.seeds == nil {
		p.seeds = map[seed]bool{}
	}
	counts := map[bpf.WeirLportKey]int32{}
	for _, s := range socks {
		counts[lportKey(p.ns.cookie, s.local)]++
	}
	for _, s := range socks {
		k := lportKey(p.ns.cookie, s.local)
		var v bpf.WeirLport
		err := p.d.objs.Listening.Lookup(k, &v)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read listening socket: %w", err)
		}
		if v.Refs < counts[k] { // the programs did not see it begin
			v.Refs = counts[k]
			p.seeds[seed{k, s.cookie}] = true
		}
		if id := p.d.endpointOfCgroup(s.cgroup); id != 0 {
			v.Endpoint = id
		}
		if s.local.Addr().Is6() && !s.v6only {
			v.Dual = 1
		}
		if err := p.d.objs.Listening.Put(k, v); err != nil {
			return fmt.Errorf("write listening socket: %w", err)
		}
	}
	return nil
}

// listener finds the endpoint whose socket would take a connection to addr in a
// namespace, as ingress.h does; 0 none.
func (d *Datapath) listener(netns uint64, addr netip.AddrPort) uint32 {
	any6 := netip.IPv6Unspecified()
	try := []netip.Addr{addr.Addr(), any6}
	if addr.Addr().Is4() {
		try = []netip.Addr{addr.Addr(), netip.IPv4Unspecified(), any6}
	}
	for _, a := range try {
		var v bpf.WeirLport
		err := d.objs.Listening.Lookup(lportKey(netns, netip.AddrPortFrom(a, addr.Port())), &v)
		if err != nil || v.Refs <= 0 || a == any6 && addr.Addr().Is4() && v.Dual == 0 {
			continue
		}
		if v.Endpoint != 0 {
			return v.Endpoint
		}
		var id uint32
		d.objs.Inherited.Lookup(lportKey(netns, netip.AddrPortFrom(a, addr.Port())), &id)
		return id
	}
	return 0
}

// Resync forgets listening sockets that are gone, and finds those that endpoints hold without having opened them. It is to be
// called every few seconds.
func (d *Datapath) Resync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, p := range d.places {
		if len(p.seeds) > 0 {
			errs = append(errs, p.resync())
		}
	}
	if d.cfg.Ingress {
		errs = append(errs, d.sweepListening(), d.findInherited())
	}
	return errors.Join(errs...)
}

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
				target, _ := os.Readlink("/proc/" + pid + "/fd/" + fd.Name())
				var inode uint32
				if n, _ := fmt.Sscanf(target, "socket:[%d]", &inode); n == 1 {
					list = append(list, inode)
				}
			}
		}
		return nil
	})
	return list
}

func (p *place) resync() error {
	socks, err := p.listNow()
	if err != nil {
		return err
	}
	alive := map[uint64]bool{}
	for _, s := range socks {
		alive[s.cookie] = true
	}
	for s := range p.seeds {
		if alive[s.cookie] {
			continue
		}
		var v bpf.WeirLport
		if err := p.d.objs.Listening.Lookup(s.key, &v); err == nil {
			v.Refs--
			if err := p.d.objs.Listening.Put(s.key, v); err != nil {
				return fmt.Errorf("write listening socket: %w", err)
			}
		}
		delete(p.seeds, s)
	}
	return nil
}

// forgetListening drops the namespace's entries.
func (p *place) forgetListening() error {
	if !p.d.cfg.Ingress || p.ns.cookie == 0 {
		return nil
	}
	if err := p.d.objs.Places.Delete(p.ns.cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget namespace: %w", err)
	}
	mine, err := p.d.findListening(func(k bpf.WeirLportKey, _ bpf.WeirLport) bool { return k.Netns == p.ns.cookie })
	errs := []error{err}
	for _, k := range mine {
		if err := p.d.objs.Listening.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// findListening returns the keys of the entries that f wants.
func (d *Datapath) findListening(f func(bpf.WeirLportKey, bpf.WeirLport) bool) (found []bpf.WeirLportKey, err error) {
	// In large steps: the map holds everybody's.
	var cursor ebpf.MapBatchCursor
	keys, values := make([]bpf.WeirLportKey, listenBatch), make([]bpf.WeirLport, listenBatch)
	for {
		n, err := d.objs.Listening.BatchLookup(&cursor, keys, values, nil)
		for i, k := range keys[:n] {
			if f(k, values[i]) {
				found = append(found, k)
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return found, nil
		}
		if err != nil {
			return found, fmt.Errorf("read listening sockets: %w", err)
		}
	}
}

// sweepListening removes the entries of sockets that listen no more; the programs may
// not. One that begins to listen meanwhile may lose its entry: where something was
// removed, sock_diag is asked once more. The caller holds d.mu.
func (d *Datapath) sweepListening() error {
	over, err := d.findListening(func(_ bpf.WeirLportKey, v bpf.WeirLport) bool { return v.Refs <= 0 })
	errs := []error{err}
	swept := map[*place]bool{}
	for _, k := range over {
		var v bpf.WeirLport
		if err := d.objs.Listening.LookupAndDelete(k, &v); err != nil {
			if !errors.Is(err, ebpf.ErrKeyNotExist) {
				errs = append(errs, fmt.Errorf("remove listening socket: %w", err))
			}
			continue
		}
		if p := d.places[k.Netns]; p != nil {
			swept[p] = true
		}
	}
	for p := range swept {
		errs = append(errs, p.seedListening())
	}
	return errors.Join(errs...)
}

// listenBatch is how many entries are read at a time; the kernel gives no bucket of
// its table in part, so it must not be small.
const listenBatch = 4096

func lportKey(netns uint64, a netip.AddrPort) bpf.WeirLportKey {
	k := bpf.WeirLportKey{Netns: netns, Port: uint32(a.Port())}
	k.Local.Ip = words(a.Addr())
	return k
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

// listNow lists the listening sockets of the namespace, the proxy's own apart.
func (p *place) listNow() ([]listenSocket, error) {
	var list []listenSocket
	err := p.ns.do(func() (err error) {
		list, err = listSockets()
		return err
	})
	return p.others(list), err
}

// others are the sockets of a list but for the proxy's.
func (p *place) others(list []listenSocket) []listenSocket {
	own := uint16(p.ln.Addr().(*net.TCPAddr).Port)
	return slices.DeleteFunc(slices.Clone(list), func(s listenSocket) bool { return s.local.Port() == own })
}

// listSockets asks sock_diag for the listening TCP sockets of the calling thread's
// namespace.
func listSockets() ([]listenSocket, error) {
	var list []listenSocket
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		socks, err := diag(family)
		if err != nil {
			return nil, fmt.Errorf("list listening sockets: %w", err)
		}
		list = append(list, socks...)
	}
	return list, nil
}

// Attributes and layout of inet_diag (linux/inet_diag.h).
const (
	diagSkV6Only = 11
	diagCgroupID = 21
	diagMsgSize  = 72 // struct inet_diag_msg
	tcpListen    = 10
)

// diagRequest is struct inet_diag_req_v2.
type diagRequest struct {
	family, proto uint8
	states        uint32
}

func (r diagRequest) Len() int { return 56 }
func (r diagRequest) Serialize() []byte {
	b := make([]byte, r.Len())
	b[0], b[1] = r.family, r.proto
	binary.NativeEndian.PutUint32(b[4:], r.states)
	return b
}

func diag(family uint8) ([]listenSocket, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(diagRequest{family: family, proto: unix.IPPROTO_TCP, states: 1 << tcpListen})
	msgs, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	if err != nil {
		return nil, err
	}
	var list []listenSocket
	for _, m := range msgs {
		if len(m) < diagMsgSize {
			continue
		}
		s := listenSocket{cookie: uint64(binary.NativeEndian.Uint32(m[44:])) | uint64(binary.NativeEndian.Uint32(m[48:]))<<32}
		var a netip.Addr
		if m[0] == unix.AF_INET {
			a = netip.AddrFrom4([4]byte(m[8:12]))
		} else {
			a = netip.AddrFrom16([16]byte(m[8:24]))
		}
		s.local = netip.AddrPortFrom(a, binary.BigEndian.Uint16(m[4:]))
		s.inode = binary.NativeEndian.Uint32(m[68:])
		attrs, err := nl.ParseRouteAttr(m[diagMsgSize:])
		if err != nil {
			return nil, err
		}
		for _, at := range attrs {
			switch {
			case at.Attr.Type == diagSkV6Only && len(at.Value) >= 1:
				s.v6only = at.Value[0] != 0
			case at.Attr.Type == diagCgroupID && len(at.Value) >= 8:
				s.cgroup = binary.NativeEndian.Uint64(at.Value)
			}
		}
		list = append(list, s)
	}
	return list, nil
}
