//go:build linux

package redirect

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/weir-proxy/weir/bpf"
)

// The table of listening sockets is counted by the programs: at listen(), and at the
// end of those that they saw begin. What they cannot see, or saw wrongly, is put right
// here, by comparing with sock_diag; every change is a difference that the kernel adds
// (weir_count).

// seedListening tells the kernel who listens in this namespace already, and which of
// them are endpoints' sockets. The caller holds d.mu.
func (p *place) seedListening() error {
	socks := p.others(p.first)
	if p.seeds != nil { // not the first endpoint here
		var err error
		if socks, err = p.listNow(); err != nil {
			return err
		}
	}
	if p.seeds == nil {
		p.seeds = map[uint64]bool{}
	}
	byKey := p.byKey(socks)
	for k, list := range byKey {
		v, err := p.d.entry(k)
		if err != nil {
			return err
		}
		c := bpf.WeirLportChange{Key: k, Delta: max(0, int32(len(list))-v.Refs)}
		if err := p.add(c, list); err != nil {
			return err
		}
	}
	return nil
}

// add changes an entry as c says, which the sockets of the list share. Of those that
// the programs did not see begin they will not see the end.
func (p *place) add(c bpf.WeirLportChange, list []tcpSocket) error {
	for _, s := range list {
		if c.Delta > 0 {
			p.seeds[s.cookie] = true
		}
		if id := p.d.endpointOfCgroup(s.cgroup); id != 0 {
			c.Endpoint = id
		}
		if s.local.Addr().Is6() && !s.v6only {
			c.Dual = 1
		}
	}
	return p.d.count(c)
}

func (p *place) byKey(socks []tcpSocket) map[bpf.WeirLportKey][]tcpSocket {
	byKey := map[bpf.WeirLportKey][]tcpSocket{}
	for _, s := range socks {
		k := lportKey(p.ns.cookie, s.local)
		byKey[k] = append(byKey[k], s)
	}
	return byKey
}

// entry reads an entry; one that is not there is zero.
func (d *Datapath) entry(k bpf.WeirLportKey) (v bpf.WeirLport, err error) {
	if err := d.objs.Listening.Lookup(k, &v); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return v, fmt.Errorf("read listening socket: %w", err)
	}
	return v, nil
}

// count has the kernel change an entry.
func (d *Datapath) count(c bpf.WeirLportChange) error {
	full, err := d.objs.WeirCount.Run(&ebpf.RunOptions{Context: c})
	if err != nil {
		return fmt.Errorf("count listening socket: %w", err)
	}
	if full != 0 {
		return errors.New("count listening socket: the table is full")
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

// Sweeping of the table of listening sockets.
const (
	// recounted is how many namespaces are compared with sock_diag at a time, besides
	// those that have sockets older than our programs.
	recounted = 32
	// settled is for how long the table must say too little before it is believed:
	// between listen() and its callback, and between close() and its end, it does so
	// for a moment.
	settled = time.Second
)

// Resync forgets listening sockets that are gone, puts right what was counted wrongly,
// finds those that endpoints hold without having opened them, and ends the proxy's
// connections whose address is gone. It is to be called every few seconds.
func (d *Datapath) Resync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.cfg.Ingress {
		return nil
	}
	table, err := d.listeningTable()
	if err != nil {
		return err
	}
	errs := []error{d.sweepListening(table)}
	n := 0
	for _, p := range d.places {
		if len(p.seeds) == 0 && len(p.low) == 0 {
			if n++; n > recounted {
				continue
			}
		}
		if err := p.recount(table[p.ns.cookie]); !errors.Is(err, errNobodyInside) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, d.settle())...)
}

// Settle is the part of Resync that somebody may wait for: it ends connections that lost
// their address and finds listening sockets that were inherited. What only counts
// again what the programs have counted takes a visit to every namespace.
func (d *Datapath) Settle() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.cfg.Ingress {
		return nil
	}
	return d.settle()
}

func (d *Datapath) settle() error {
	var errs []error
	for _, p := range d.places {
		if err := p.endLost(); !errors.Is(err, errNobodyInside) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, d.syncInherited())...)
}

// listenEntries is the table, or a namespace's part of it.
type listenEntries map[bpf.WeirLportKey]bpf.WeirLport

// listeningTable reads the table, by namespace.
func (d *Datapath) listeningTable() (map[uint64]listenEntries, error) {
	table := map[uint64]listenEntries{}
	// In large steps: the map holds everybody's.
	var cursor ebpf.MapBatchCursor
	keys, values := make([]bpf.WeirLportKey, listenBatch), make([]bpf.WeirLport, listenBatch)
	for {
		n, err := d.objs.Listening.BatchLookup(&cursor, keys, values, nil)
		for i, k := range keys[:n] {
			if table[k.Netns] == nil {
				table[k.Netns] = listenEntries{}
			}
			table[k.Netns][k] = values[i]
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return table, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read listening sockets: %w", err)
		}
	}
}

// listenBatch is how many entries are read at a time; the kernel gives no bucket of
// its table in part, so it must not be small.
const listenBatch = 4096

// sweepListening removes the entries that nobody has used since the last sweep; the
// programs may not: one that begins to listen at this very moment would lose its
// count. Here recount would find it. The caller holds d.mu.
func (d *Datapath) sweepListening(table map[uint64]listenEntries) error {
	var errs []error
	idle := map[bpf.WeirLportKey]bool{}
	for _, entries := range table {
		for k, v := range entries {
			switch {
			case v.Refs > 0:
				continue
			case !d.idle[k]:
				idle[k] = true
				continue
			}
			errs = append(errs, d.count(bpf.WeirLportChange{Key: k}))
		}
	}
	d.idle = idle
	return errors.Join(errs...)
}

// recount compares the namespace's entries with the sockets that there are. A count
// that is too high is put right where nothing moved meanwhile, one that is too low when
// it stays so. The caller holds d.mu.
func (p *place) recount(entries listenEntries) error {
	socks, err := p.listNow()
	if err != nil {
		return err
	}
	before := p.byKey(socks)
	alive := map[uint64]bool{}
	for _, s := range socks {
		alive[s.cookie] = true
	}
	maps.DeleteFunc(p.seeds, func(cookie uint64, _ bool) bool { return !alive[cookie] })
	off := listenEntries{} // as they were between the two lists
	look := func(k bpf.WeirLportKey) {
		var v bpf.WeirLport
		if err := p.d.objs.Listening.Lookup(k, &v); err == nil || errors.Is(err, ebpf.ErrKeyNotExist) {
			if int(v.Refs) != len(before[k]) {
				off[k] = v
			}
		}
	}
	for k := range before {
		look(k)
	}
	for k := range entries {
		if before[k] == nil {
			look(k)
		}
	}
	if len(off) == 0 {
		p.low = nil
		return nil
	}
	if socks, err = p.listNow(); err != nil {
		return err
	}
	after := p.byKey(socks)
	low := map[bpf.WeirLportKey]time.Time{}
	var errs []error
	for k, was := range off {
		var now bpf.WeirLport
		p.d.objs.Listening.Lookup(k, &now)
		if now.Refs != was.Refs || !sameSockets(before[k], after[k]) {
			continue // it moves: next time
		}
		c := bpf.WeirLportChange{Key: k, Delta: int32(len(before[k])) - now.Refs}
		if c.Delta > 0 {
			since, ok := p.low[k]
			if !ok {
				since = time.Now()
			}
			if time.Since(since) < settled {
				low[k] = since
				continue
			}
			errs = append(errs, p.add(c, after[k]))
			continue
		}
		errs = append(errs, p.d.count(c))
	}
	p.low = low
	return errors.Join(errs...)
}

func sameSockets(a, b []tcpSocket) bool {
	if len(a) != len(b) {
		return false
	}
	for _, s := range a {
		if !slices.ContainsFunc(b, func(o tcpSocket) bool { return o.cookie == s.cookie }) {
			return false
		}
	}
	return true
}

// forgetListening drops the namespace's entries.
func (p *place) forgetListening() error {
	if !p.d.cfg.Ingress || p.ns.cookie == 0 {
		return nil
	}
	if err := p.d.objs.Places.Delete(p.ns.cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget namespace: %w", err)
	}
	table, err := p.d.listeningTable()
	errs := []error{err}
	for k := range table[p.ns.cookie] {
		if err := p.d.objs.Listening.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func lportKey(netns uint64, a netip.AddrPort) bpf.WeirLportKey {
	k := bpf.WeirLportKey{Netns: netns, Port: uint32(a.Port())}
	k.Local.Ip = words(a.Addr())
	return k
}
