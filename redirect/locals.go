//go:build linux

package redirect

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

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
	e     *Endpoint
	watch *addrWatch

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
		if a := p.Addr(); !a.IsLoopback() && !a.IsUnspecified() && !a.IsLinkLocalUnicast() && !a.IsMulticast() {
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
	var err error
	l.watch, err = watchAddrs(e.place.ns, e.d.cfg.Log, l.sync)
	return l, err
}

// sync writes the difference between the namespaces' addresses and the kernel's
// table.
func (l *localAddrs) sync(own []netip.Prefix) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := !slices.Equal(l.own, own)
	l.own = own
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

func (l *localAddrs) close() error {
	if l.watch != nil {
		l.watch.close()
	}
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
	watch *addrWatch
	mu    sync.Mutex
	list  []netip.Prefix
}

// watchNode tells the endpoints that are namespaces of changes. Only one goroutine
// adds endpoints at a time (Datapath.mu), so there is one.
func watchNode(d *Datapath) (*nodeAddrs, error) {
	n := &nodeAddrs{}
	ns, err := openNamespace("")
	if err != nil {
		return nil, err
	}
	first := true
	n.watch, err = watchAddrs(ns, d.cfg.Log, func(list []netip.Prefix) error {
		n.mu.Lock()
		n.list = nil
		for _, p := range list {
			if !p.Addr().IsLoopback() && !p.Addr().IsUnspecified() {
				n.list = append(n.list, p)
			}
		}
		n.mu.Unlock()
		if first { // inside watchAddrs, and d.mu is held
			first = false
			return nil
		}
		d.mu.Lock()
		var all []*localAddrs
		for _, e := range d.endpoints {
			if e.cfg.Cgroup == 0 {
				all = append(all, e.locals)
			}
		}
		d.mu.Unlock()
		for _, l := range all {
			l.watch.poke()
		}
		return nil
	})
	return n, err
}

func (n *nodeAddrs) addrs() []netip.Prefix {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.list
}

func (n *nodeAddrs) close() { n.watch.close() }

// addrWatch calls sync with the addresses local to a namespace, at first before
// watchAddrs returns, and then whenever they change.
type addrWatch struct {
	ns    namespace
	log   *slog.Logger
	sync  func([]netip.Prefix) error
	stop  chan struct{}
	again chan struct{}
	wg    sync.WaitGroup
}

func watchAddrs(ns namespace, log *slog.Logger, sync func([]netip.Prefix) error) (*addrWatch, error) {
	w := &addrWatch{ns: ns, log: log, sync: sync, stop: make(chan struct{}), again: make(chan struct{}, 1)}
	updates, err := w.subscribe()
	if err != nil {
		close(w.stop)
		return nil, err
	}
	w.wg.Go(func() { w.follow(updates) })
	return w, nil
}

// subscribe returns a channel that says when to look again, after a first look:
// nothing falls between. It closes when the kernel lost track of what to tell, or
// the watch was stopped.
func (w *addrWatch) subscribe() (<-chan netlink.RouteUpdate, error) {
	updates := make(chan netlink.RouteUpdate, 64)
	err := w.ns.do(func() error { // the socket stays in the namespace of the thread that opens it
		return netlink.RouteSubscribeWithOptions(updates, w.stop, netlink.RouteSubscribeOptions{
			ErrorCallback: func(err error) {
				if !w.stopped() {
					w.log.Warn("watch local addresses", "error", err)
				}
			},
		})
	})
	if err != nil {
		return nil, fmt.Errorf("watch local addresses: %w", err)
	}
	return updates, w.look()
}

func (w *addrWatch) look() error {
	list, err := localPrefixes(w.ns)
	if err != nil {
		return err
	}
	return w.sync(list)
}

func (w *addrWatch) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// resubscribe is how long a watch that broke waits before it is taken up again.
const resubscribe = 100 * time.Millisecond

func (w *addrWatch) follow(updates <-chan netlink.RouteUpdate) {
	for {
		select {
		case <-w.stop:
			for range updates { // until the subscription is gone
			}
			return
		case <-w.again:
		case _, ok := <-updates:
			if !ok {
				updates = w.takeUp()
				if updates == nil {
					return
				}
				continue
			}
			for len(updates) > 0 {
				<-updates
			}
		}
		if err := w.look(); err != nil && !w.stopped() {
			w.log.Error("update local addresses", "error", err)
		}
	}
}

// takeUp subscribes anew; nil after the watch was stopped.
func (w *addrWatch) takeUp() <-chan netlink.RouteUpdate {
	for {
		select {
		case <-w.stop:
			return nil
		case <-time.After(resubscribe):
		}
		updates, err := w.subscribe()
		if err == nil {
			return updates
		}
		w.log.Error("update local addresses", "error", err)
	}
}

// poke has the addresses looked at again.
func (w *addrWatch) poke() {
	select {
	case w.again <- struct{}{}:
	default:
	}
}

func (w *addrWatch) close() {
	close(w.stop)
	w.wg.Wait()
}

// localPrefixes reads the namespace's table of local routes, which is what Linux
// itself asks whether an address is its own.
func localPrefixes(ns namespace) ([]netip.Prefix, error) {
	list := []netip.Prefix{
		// connect() to the unspecified address means the loopback.
		netip.MustParsePrefix("0.0.0.0/32"),
		netip.MustParsePrefix("::/128"),
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("::1/128"),
	}
	err := ns.do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		rs, err := h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		for _, r := range rs {
			if r.Dst == nil {
				continue
			}
			if a, ok := netip.AddrFromSlice(r.Dst.IP); ok {
				ones, _ := r.Dst.Mask.Size()
				list = append(list, netip.PrefixFrom(a.Unmap(), ones))
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list local addresses: %w", err)
	}
	return list, nil
}
