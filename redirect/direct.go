//go:build linux

package redirect

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/weir-proxy/weir/bpf"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
	"golang.org/x/sys/unix"
)

// Direct is an open TCP connection of an endpoint that does not go through the proxy: the
// kernel let it through, or it is older than the endpoint.
type Direct struct {
	Endpoint  uint32
	Direction flow.Direction
	Peer      identity.ID // as the kernel would judge it now
	Src, Dst  netip.AddrPort
	PID       uint32 // of the sender, where it is an endpoint; 0 unknown
	Comm      string

	place *place
	sock  tcpSocket
}

// Direct lists the connections of endpoints that of wants. An endpoint's connections with
// itself are not among them, nor is a namespace that is gone.
func (d *Datapath) Direct(of func(endpoint uint32) bool) ([]*Direct, error) {
	d.mu.Lock()
	places := map[*place]namespace{}
	for _, e := range d.endpoints {
		if of(e.cfg.ID) {
			places[e.place] = e.place.ns
		}
	}
	d.mu.Unlock()
	paths := sync.OnceValue(taskPaths)
	found := map[*place][]tcpSocket{}
	for p, ns := range places {
		var socks []tcpSocket
		err := ns.doNow(paths, func() (err error) {
			socks, err = listTCP(tcpConnected)
			return err
		})
		if err != nil {
			d.cfg.Log.Debug("look for connections", "error", err)
			continue
		}
		if len(socks) > 0 {
			found[p] = socks
		}
	}
	own, err := ownSockets() // after the lists: the proxy opens new ones all the time
	if err != nil {
		return nil, err
	}
	var list []*Direct
	for p, socks := range found {
		socks = slices.DeleteFunc(socks, func(s tcpSocket) bool {
			return s.orphan() || own[s.inode] || s.local.Port() == redirectPort || s.remote.Port() == redirectPort
		})
		list = append(list, d.ofEndpoints(p, socks, of)...)
	}
	return list, nil
}

// redirectPort is REDIRECT_PORT of types.h: connections to it are the proxy's.
const redirectPort = 1

// ofEndpoints are the connections that are endpoints' among the sockets of a namespace.
func (d *Datapath) ofEndpoints(p *place, socks []tcpSocket, of func(uint32) bool) (list []*Direct) {
	d.mu.Lock()
	defer d.mu.Unlock()
	owners := p.owners()
	for _, s := range socks {
		if e := owners(s.cgroup); e != nil && of(e.cfg.ID) {
			if c := e.direct(s); c != nil {
				list = append(list, c)
			}
		}
	}
	return list
}

// Destroy closes a connection; who has it gets ECONNABORTED, and the far end a RST. One
// that has ended by itself meanwhile is an error.
func (c *Direct) Destroy() error {
	err := c.place.ns.do(func() error {
		now, err := c.sock.now()
		if err == nil && now.orphan() {
			err = unix.ENOENT
		}
		if err == nil {
			err = destroy(c.sock)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("close connection of %v to %v: %w", c.Src, c.Dst, err)
	}
	return nil
}

// owners finds the endpoints of sockets of the namespace by their cgroups. The caller holds
// d.mu.
func (p *place) owners() func(cgroup uint64) *Endpoint {
	var whole *Endpoint
	for _, e := range p.d.endpoints {
		if e.place == p && e.cfg.Cgroup == 0 {
			whole = e
		}
	}
	known := map[uint64]*Endpoint{}
	return func(cgroup uint64) *Endpoint {
		e, ok := known[cgroup]
		if !ok {
			if e = p.d.endpoints[p.d.endpointOfCgroup(cgroup)]; e == nil {
				e = whole
			}
			known[cgroup] = e
		}
		return e
	}
}

// direct says what a socket's connection is; nil for one that others look after.
func (e *Endpoint) direct(s tcpSocket) *Direct {
	d := e.d
	local, remote := unmap(s.local), unmap(s.remote)
	c := &Direct{Endpoint: e.cfg.ID, place: e.place, sock: s, Src: local, Dst: remote}
	var f bpf.WeirFlow
	if d.flow(e.place.ns.cookie, local, remote, &f) && f.Cookie == s.cookie {
		if bpf.WeirKind(f.Kind) != bpf.WeirKindKIND_DIRECT {
			return nil
		}
		c.Peer, c.PID, c.Comm = identity.ID(f.Peer), f.Pid, comm(f.Comm)
	} else if d.listens(e.place.ns.cookie, local) {
		c.Direction, c.Src, c.Dst = flow.Ingress, remote, local
		switch {
		case d.sender(e.place.ns.cookie, remote, local, &f):
			if bpf.WeirKind(f.Kind) == bpf.WeirKindKIND_UPSTREAM && f.Judged == e.cfg.ID {
				return nil // the proxy's
			}
			c.Peer, c.PID, c.Comm = identity.ID(f.Identity), f.Pid, comm(f.Comm)
			if f.Endpoint == e.cfg.ID {
				c.Peer = identitySelf
			}
		default: // by address nobody is an endpoint
			c.Peer = d.lookupPeer(e.scope(), remote.Addr())
		}
	} else { // older than the endpoint
		for _, scope := range []uint32{e.scope(), scopeAddresses} {
			if c.Peer = d.lookupPeer(scope, remote.Addr()); c.Peer != identity.Unknown {
				break
			}
		}
	}
	if c.Peer == identity.Unknown {
		c.Peer = identity.World
	}
	if c.Peer.IsWorld() {
		// The prefixes of policies may be others than when it was judged.
		c.Peer = d.Outside(remote.Addr())
	}
	if c.Peer == identitySelf {
		return nil
	}
	return c
}

// flow reads the entry of the connecting side of a connection.
func (d *Datapath) flow(netns uint64, local, remote netip.AddrPort, f *bpf.WeirFlow) bool {
	k := bpf.WeirFlowKey{Netns: netns, Lport: local.Port(), Rport: remote.Port()}
	k.Local.Ip, k.Remote.Ip = words(local.Addr()), words(remote.Addr())
	return d.objs.Flows.Lookup(k, f) == nil
}

// sender finds what the sender of a connection that was accepted wrote, as ingress.h does
// but for the sequence number: that was looked at when it came.
func (d *Datapath) sender(netns uint64, local, remote netip.AddrPort, f *bpf.WeirFlow) bool {
	if d.flow(netns, local, remote, f) {
		return f.Endpoint != 0 || bpf.WeirKind(f.Kind) == bpf.WeirKindKIND_UPSTREAM
	}
	return d.flow(0, local, remote, f) && f.Claims == 1 && f.Cookie != 0 && f.Netns != netns
}

// listens reports whether anybody listens at an address.
func (d *Datapath) listens(netns uint64, addr netip.AddrPort) bool {
	try := []netip.Addr{addr.Addr(), netip.IPv6Unspecified()}
	if addr.Addr().Is4() {
		try = append(try, netip.IPv4Unspecified())
	}
	for _, a := range try {
		var v bpf.WeirLport
		if d.objs.Listening.Lookup(lportKey(netns, netip.AddrPortFrom(a, addr.Port())), &v) == nil && v.Refs > 0 {
			return true
		}
	}
	return false
}

// Outside is the identity of an address outside: that of the longest prefix that policies
// name.
func (d *Datapath) Outside(addr netip.Addr) identity.ID {
	if id := d.lookupPeer(scopeCIDR, addr); id != identity.Unknown {
		return id
	}
	return identity.World
}

// lookupPeer reads the kernel's table of addresses; identity.Unknown if there is nothing.
func (d *Datapath) lookupPeer(scope uint32, addr netip.Addr) identity.ID {
	addr = addr.Unmap().WithZone("")
	var id uint32
	if d.objs.Peers.Lookup(peerKey(scope, netip.PrefixFrom(addr, addr.BitLen())), &id) != nil {
		return identity.Unknown
	}
	return identity.ID(id)
}
