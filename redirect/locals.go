//go:build linux

package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/weir-proxy/weir/identity"
	"golang.org/x/sys/unix"
)

// identitySelf marks an endpoint's own addresses; types.h has its twin.
const identitySelf identity.ID = 0xffffffff

// localAddrs keeps the kernel's table of an endpoint's local addresses as the
// namespace has them: the node's own for an endpoint in a cgroup (entity host),
// the endpoint's own for an endpoint that is a namespace.
type localAddrs struct {
	e    *Endpoint
	as   identity.ID
	stop chan struct{}
	wg   sync.WaitGroup

	have map[netip.Prefix]bool
}

func watchLocals(e *Endpoint) (*localAddrs, error) {
	l := &localAddrs{e: e, as: identity.Host, stop: make(chan struct{}), have: map[netip.Prefix]bool{}}
	if e.cfg.Cgroup == 0 {
		l.as = identitySelf
	}
	updates, err := l.subscribe()
	if err != nil {
		close(l.stop)
		return nil, err
	}
	l.wg.Go(func() { l.follow(updates) })
	return l, nil
}

// subscribe returns a channel that says when to sync again, after a first sync:
// nothing falls between. It closes when the kernel lost track of what to tell,
// or the watch was stopped.
func (l *localAddrs) subscribe() (<-chan netlink.RouteUpdate, error) {
	updates := make(chan netlink.RouteUpdate, 64)
	err := l.e.place.ns.do(func() error { // the socket stays in the namespace of the thread that opens it
		return netlink.RouteSubscribeWithOptions(updates, l.stop, netlink.RouteSubscribeOptions{
			ErrorCallback: func(err error) {
				if !l.stopped() {
					l.e.d.cfg.Log.Warn("watch local addresses", "endpoint", l.e.cfg.ID, "error", err)
				}
			},
		})
	})
	if err != nil {
		return nil, fmt.Errorf("watch local addresses: %w", err)
	}
	if err := l.sync(); err != nil {
		return nil, err
	}
	return updates, nil
}

func (l *localAddrs) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// resubscribe is how long a watch that broke waits before it is taken up again.
const resubscribe = 100 * time.Millisecond

func (l *localAddrs) follow(updates <-chan netlink.RouteUpdate) {
	for {
		for range updates {
			for len(updates) > 0 {
				<-updates
			}
			if err := l.sync(); err != nil && !l.stopped() {
				l.e.d.cfg.Log.Error("update local addresses", "endpoint", l.e.cfg.ID, "error", err)
			}
		}
		for again := false; !again; {
			select {
			case <-l.stop:
				return
			case <-time.After(resubscribe):
			}
			var err error
			if updates, err = l.subscribe(); err != nil {
				l.e.d.cfg.Log.Error("update local addresses", "endpoint", l.e.cfg.ID, "error", err)
			}
			again = err == nil
		}
	}
}

// sync reads the namespace's table of local routes, which is what Linux itself
// asks whether an address is its own, and writes the difference.
func (l *localAddrs) sync() error {
	want := map[netip.Prefix]bool{
		// connect() to the unspecified address means the loopback.
		netip.MustParsePrefix("0.0.0.0/32"):  true,
		netip.MustParsePrefix("::/128"):      true,
		netip.MustParsePrefix("127.0.0.0/8"): true,
		netip.MustParsePrefix("::1/128"):     true,
	}
	err := l.e.place.ns.do(func() error {
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
				want[netip.PrefixFrom(a.Unmap(), ones)] = true
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list local addresses: %w", err)
	}
	for p := range want {
		if !l.have[p] {
			if err := l.e.d.putPeer(l.e.cfg.ID, p, l.as); err != nil {
				return err
			}
			l.have[p] = true
		}
	}
	for p := range l.have {
		if !want[p] {
			if err := l.drop(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *localAddrs) drop(p netip.Prefix) error {
	delete(l.have, p)
	if err := l.e.d.objs.Peers.Delete(peerKey(l.e.cfg.ID, p)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove identity of %v: %w", p, err)
	}
	return nil
}

func (l *localAddrs) close() {
	close(l.stop)
	l.wg.Wait()
}
