//go:build linux

package redirect

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/weir-proxy/weir/identity"
	"golang.org/x/sys/unix"
)

// identitySelf marks an endpoint's own addresses; types.h has its twin.
const identitySelf identity.ID = 0xffffffff

// localAddrs keeps the kernel's table of an endpoint's local addresses as its
// namespace has them. For an endpoint in a cgroup they are the host's. For one that
// is a namespace they are its own, and the node's addresses are the host's.
type localAddrs struct {
	e *Endpoint

	mu   sync.Mutex
	have map[netip.Prefix]identity.ID
	own  []netip.Prefix
}

// Addrs are the addresses by which others reach an endpoint that is a namespace:
// without loopback and link-local ones. A cgroup has none of its own.
func (e *Endpoint) Addrs() []netip.Prefix {
	if e.cfg.Cgroup != 0 {
		return nil
	}
	e.locals.mu.Lock()
	defer e.locals.mu.Unlock()
	var list []netip.Prefix
	for _, p := range e.locals.own {
		if others(p.Addr()) {
			list = append(list, p)
		}
	}
	return list
}

func watchLocals(e *Endpoint) (*localAddrs, error) {
	l := &localAddrs{e: e, have: map[netip.Prefix]identity.ID{}}
	if e.cfg.Cgroup == 0 && e.d.node == nil {
		n, err := watchNode(e.d)
		if err != nil {
			return nil, err
		}
		e.d.node = n
	}
	return l, e.place.addrs.follow(l)
}

// sync writes the difference between the namespaces' addresses and the kernel's
// table.
func (l *localAddrs) sync(own []netip.Prefix) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := !slices.Equal(l.own, own)
	if changed {
		l.disown(l.own)
		l.own = slices.Clone(own)
		l.owns(l.own)
	}
	if changed && l.e.d.cfg.OnAddrs != nil {
		defer l.e.d.cfg.OnAddrs()
	}
	want := map[netip.Prefix]identity.ID{}
	as := identity.Host
	if l.e.cfg.Cgroup == 0 {
		as = identitySelf
		for _, p := range l.e.d.node.addrs() {
			want[p] = identity.Host
		}
	}
	for _, p := range own {
		want[p] = as
	}
	for p, id := range want {
		if l.have[p] == id {
			continue
		}
		if err := l.e.d.putPeer(l.e.scope(), p, id); err != nil {
			return err
		}
		l.have[p] = id
	}
	for p := range l.have {
		if _, ok := want[p]; ok {
			continue
		}
		if err := l.e.d.dropPeer(l.e.scope(), p); err != nil {
			return err
		}
		delete(l.have, p)
	}
	return nil
}

// owns makes addresses lead to an endpoint that is a namespace. One that two endpoints
// have leads to neither.
func (l *localAddrs) owns(list []netip.Prefix) {
	if l.e.cfg.Cgroup != 0 {
		return
	}
	for _, p := range list {
		if p.IsSingleIP() && others(p.Addr()) {
			if id, taken := l.e.d.owners.LoadOrStore(p.Addr(), l.e.cfg.ID); taken && id != l.e.cfg.ID {
				l.e.d.owners.Store(p.Addr(), uint32(0))
			}
		}
	}
}

func (l *localAddrs) disown(list []netip.Prefix) {
	for _, p := range list {
		l.e.d.owners.CompareAndDelete(p.Addr(), l.e.cfg.ID)
	}
}

// others reports whether others can reach an address that is somebody's own.
func others(a netip.Addr) bool {
	return !a.IsLoopback() && !a.IsUnspecified() && !a.IsLinkLocalUnicast() && !a.IsMulticast()
}

func (l *localAddrs) close() error {
	l.e.place.addrs.unfollow(l)
	defer l.disown(l.own)
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for p := range l.have {
		errs = append(errs, l.e.d.dropPeer(l.e.scope(), p))
	}
	return errors.Join(errs...)
}

// nodeAddrs are the addresses of the namespace that the proxy itself is in, the
// loopback apart.
type nodeAddrs struct {
	d     *Datapath
	watch *addrWatch
	mu    sync.Mutex
	list  []netip.Prefix
}

// watchNode tells the endpoints that are namespaces of changes.
func watchNode(d *Datapath) (*nodeAddrs, error) {
	ns, err := openNamespace("")
	if err != nil {
		return nil, err
	}
	n := &nodeAddrs{d: d}
	if n.watch, err = watchAddrs(ns, d.cfg.Log); err != nil {
		return nil, err
	}
	return n, n.watch.follow(n)
}

func (n *nodeAddrs) sync(list []netip.Prefix) error {
	n.mu.Lock()
	first := n.list == nil
	n.list = []netip.Prefix{}
	for _, p := range list {
		if !p.Addr().IsLoopback() && !p.Addr().IsUnspecified() {
			n.list = append(n.list, p)
		}
	}
	n.mu.Unlock()
	if first { // by watchNode, whose caller holds d.mu; there is nobody to tell
		return nil
	}
	n.d.mu.Lock()
	var all []*addrWatch
	for _, p := range n.d.places {
		if p.addrs != n.watch {
			all = append(all, p.addrs)
		}
	}
	n.d.mu.Unlock()
	for _, w := range all {
		w.update()
	}
	return nil
}

func (n *nodeAddrs) addrs() []netip.Prefix {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.list
}

func (n *nodeAddrs) close() { n.watch.close() }

// addrWatch tells its followers the addresses local to a namespace, and tells them
// again whenever those may have changed.
type addrWatch struct {
	ns      namespace
	log     *slog.Logger
	changes *os.File // netlink socket that is told of routes; what it is told does not matter
	wg      sync.WaitGroup

	mu        sync.Mutex // one look at a time
	list      []netip.Prefix
	followers []follower
}

type follower interface{ sync([]netip.Prefix) error }

// watchAddrs begins to watch ns, which the calling thread is in.
func watchAddrs(ns namespace, log *slog.Logger) (*addrWatch, error) {
	w := &addrWatch{ns: ns, log: log}
	// Told first, looked second: nothing falls between.
	var err error
	if w.changes, err = routeChanges(); err != nil {
		return nil, fmt.Errorf("watch local addresses: %w", err)
	}
	if w.list, err = localPrefixes(); err != nil {
		w.changes.Close()
		return nil, err
	}
	w.wg.Go(w.run)
	return w, nil
}

// follow tells f, now and from now on.
func (w *addrWatch) follow(f follower) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.followers = append(w.followers, f)
	return f.sync(w.list)
}

func (w *addrWatch) unfollow(f follower) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.followers = slices.DeleteFunc(w.followers, func(g follower) bool { return g == f })
}

func (w *addrWatch) run() {
	buf := make([]byte, 512)
	for {
		// ENOBUFS: something was lost. That is a change too.
		if _, err := w.changes.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
			if !errors.Is(err, os.ErrClosed) {
				w.log.Error("watch local addresses: changes are not seen any more", "error", err)
			}
			return
		}
		w.update()
	}
}

// update looks at the addresses again.
func (w *addrWatch) update() {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.ns.do(func() error {
		list, err := localPrefixes()
		if err == nil {
			w.list = list
		}
		return err
	})
	for _, f := range w.followers {
		if err == nil {
			err = f.sync(w.list)
		}
	}
	switch {
	case errors.Is(err, errNobodyInside):
		w.log.Debug("update local addresses", "error", err)
	case err != nil:
		w.log.Error("update local addresses", "error", err)
	}
}

func (w *addrWatch) close() {
	w.changes.Close()
	w.wg.Wait()
}

// routeChanges opens a socket that becomes readable when a route of the namespace
// changes (rtnetlink(7)).
func routeChanges() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}

// dumps is how often a table is read that changes while it is read.
const dumps = 20

// localPrefixes reads the table of local routes of the calling thread's namespace,
// which is what Linux itself asks whether an address is its own.
func localPrefixes() ([]netip.Prefix, error) {
	list := []netip.Prefix{
		// connect() to the unspecified address means the loopback.
		netip.MustParsePrefix("0.0.0.0/32"),
		netip.MustParsePrefix("::/128"),
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("::1/128"),
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("list local addresses: %w", err)
	}
	defer h.Close()
	var rs []netlink.Route
	for range dumps {
		rs, err = h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list local addresses: %w", err)
	}
	for _, r := range rs {
		if r.Dst == nil {
			continue
		}
		if a, ok := netip.AddrFromSlice(r.Dst.IP); ok {
			ones, _ := r.Dst.Mask.Size()
			list = append(list, netip.PrefixFrom(a.Unmap(), ones))
		}
	}
	return list, nil
}
