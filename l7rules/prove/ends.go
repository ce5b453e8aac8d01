package prove

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/match"
)

// End stands for one kind of sender or receiver.
type End struct {
	ID     identity.ID     // Host, WorldIPv4, WorldIPv6, or FirstEndpoint for an endpoint
	Labels identity.Labels // of an endpoint
	Addr   netip.Addr      // outside
	Names  []string        // that a sender was told for Addr: it is a destination then
	// Name is what the caller calls it, "" for an end that was made up.
	Name string
	// Declared says that it is an address with labels: a destination that no policy
	// judges.
	Declared bool
}

// judged reports whether policies decide for the end, and not about it alone.
func (e *End) judged() bool { return e.ID.IsEndpoint() && !e.Declared }

// String names the end as weir policy explain reads it.
func (e *End) String() string {
	switch {
	case e.Name != "":
		return e.Name
	case e.ID.IsEndpoint():
		return labelText(e.Labels)
	case e.Names != nil:
		return strings.Join(e.Names, ",") + "@" + e.Addr.String()
	case e.Addr.Is6():
		return "[" + e.Addr.String() + "]"
	case e.Addr.IsValid():
		return e.Addr.String()
	}
	return e.ID.String()
}

// labelText is labels as a person writes them: without what goes without saying.
func labelText(ls identity.Labels) string {
	text := ""
	for _, l := range ls.All() {
		if l.Source == identity.SourceK8s && l.Key == identity.NamespaceKey && l.Value == identity.DefaultNamespace && ls.Len() > 1 {
			continue
		}
		if text != "" {
			text += ","
		}
		if l.Source != identity.SourceK8s || l.Key == identity.NamespaceKey {
			text += l.Source + ":"
		}
		text += l.Key + "=" + l.Value
	}
	return text
}

// Known are the workloads and declared addresses that a caller knows, in addition to
// those that policies make one think of.
type Known struct {
	Workloads []End
	Addresses []DeclaredAddress
	// Namespaces are the labels of those namespaces whose labels are known, as
	// everything in them carries them.
	Namespaces map[string][]identity.Label
	// Only says that there are no endpoints but Workloads.
	Only bool
}

// DeclaredAddress is an address with labels, for destinations only.
type DeclaredAddress struct {
	Name   string
	Labels identity.Labels
	CIDRs  []netip.Prefix
}

// differences is what tells ends apart.
type differences struct {
	selectors []identity.Selector
	prefixes  []netip.Prefix
	cidrs     []l7rules.CIDR
	names     []l7rules.NameRule // of peers
	combine   bool               // what an address has of them counts together
	seen      map[string]bool
}

func (d *differences) selector(s identity.Selector) {
	if key := "s" + s.String(); !d.seen[key] {
		d.seen[key] = true
		d.selectors = append(d.selectors, s)
	}
}

func (d *differences) cidr(c l7rules.CIDR) {
	if key := fmt.Sprint("c", c); !d.seen[key] {
		d.seen[key] = true
		d.cidrs = append(d.cidrs, c)
		d.prefixes = append(append(d.prefixes, c.Prefix), c.Except...)
	}
}

func (d *differences) policies(list []*l7rules.Policy) {
	for _, p := range list {
		d.selector(p.Subject)
		for i := range p.Rules {
			r := &p.Rules[i]
			d.peers(&r.Peers)
			for _, n := range r.Peers.Names {
				d.name(n, r.Origin)
			}
			d.combine = d.combine || r.Deny && len(r.Peers.Names) > 0
		}
	}
}

func (d *differences) name(n match.Name, origin l7rules.Origin) {
	if key := "n" + n.Key(); !d.seen[key] {
		d.seen[key] = true
		d.names = append(d.names, l7rules.NameRule{Origin: origin, Name: n})
	}
}

func (d *differences) peers(p *l7rules.Peers) {
	for _, s := range p.Endpoints {
		d.selector(s)
	}
	for _, c := range p.CIDRs {
		d.cidr(c)
	}
}

// ends are all kinds of senders and receivers: endpoints, the host, addresses outside, and
// last, as destinations alone, declared addresses.
func (d *differences) ends(b *bench, known Known) ([]End, error) {
	var list []kind
	if !known.Only {
		var err error
		if list, err = kinds(d.selectors, known.Namespaces); err != nil {
			return nil, err
		}
	}
	var ends []End
	byKind := map[string]int{}
	for _, k := range list {
		byKind[k.selectors.key()] = len(ends)
		ends = append(ends, End{ID: identity.FirstEndpoint, Labels: k.labels})
	}
	named := map[int]bool{}
	for _, w := range known.Workloads {
		key := signature(d.selectors, w.Labels).key()
		i, ok := byKind[key]
		if !ok { // more than one label of a key
			i = len(ends)
			byKind[key] = i
			ends = append(ends, End{})
		}
		if !named[i] {
			named[i] = true
			ends[i] = End{ID: identity.FirstEndpoint, Labels: w.Labels, Name: w.Name}
		}
	}
	ends = append(ends, End{ID: identity.Host})
	outside := d.outside(known)
	ends = append(ends, outside...)
	told, err := b.toldNames(d.names, d.combine)
	if err != nil {
		return nil, err
	}
	for _, names := range told {
		for _, e := range outside {
			e.Names = names
			ends = append(ends, e)
		}
	}
	declared := map[string]bool{}
	for _, a := range known.Addresses {
		if key := signature(d.selectors, a.Labels).key(); !declared[key] {
			declared[key] = true
			ends = append(ends, End{ID: identity.FirstEndpoint, Labels: a.Labels, Name: a.Name, Declared: true})
		}
	}
	return ends, nil
}

// outside are the kinds of addresses outside, with one of each.
func (d *differences) outside(known Known) []End {
	taken := never()
	for _, a := range known.Addresses {
		taken = append(taken, a.CIDRs...)
	}
	prefixes := append(slices.Clone(d.prefixes), netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	prefixes = slices.Compact(prefixes)
	var ends []End
	seen := map[string]bool{}
	for _, p := range prefixes {
		holes := slices.Clone(taken)
		for _, q := range prefixes {
			if q.Bits() > p.Bits() && p.Contains(q.Addr()) {
				holes = append(holes, q)
			}
		}
		addr, ok := outsideOf(p, holes)
		if !ok {
			continue
		}
		key := addr.Is4()
		kind := newSet(len(d.cidrs))
		for i, c := range d.cidrs {
			if c.Prefix.Contains(addr) && !slices.ContainsFunc(c.Except, func(e netip.Prefix) bool { return e.Contains(addr) }) {
				kind.add(i)
			}
		}
		if k := fmt.Sprint(key) + kind.key(); !seen[k] {
			seen[k] = true
			id := identity.WorldIPv6
			if addr.Is4() {
				id = identity.WorldIPv4
			}
			ends = append(ends, End{ID: id, Addr: addr})
		}
	}
	return ends
}

// never are the addresses that are nobody outside: the machine's own.
func never() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("0.0.0.0/32"),
		netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("::/128"), netip.MustParsePrefix("::ffff:0:0/96"),
	}
}

// outsideOf finds an address of p that is in none of the holes, false if there is none.
func outsideOf(p netip.Prefix, holes []netip.Prefix) (netip.Addr, bool) {
	in := func(a netip.Addr) (netip.Prefix, bool) {
		i := slices.IndexFunc(holes, func(h netip.Prefix) bool { return h.Contains(a) })
		if i < 0 {
			return netip.Prefix{}, false
		}
		return holes[i], true
	}
	// Of much room, an address that reads like one is better than the first.
	for _, s := range []string{"192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"} {
		if a := netip.MustParseAddr(s); p.Contains(a) {
			if _, taken := in(a); !taken {
				return a, true
			}
		}
	}
	first := p.Masked().Addr()
	if next := first.Next(); !p.IsSingleIP() && p.Contains(next) {
		if _, taken := in(next); !taken {
			return next, true
		}
	}
	for a := first; a.IsValid() && p.Contains(a); {
		hole, taken := in(a)
		if !taken {
			return a, true
		}
		a = last(hole).Next() // invalid behind the last address of all
	}
	return netip.Addr{}, false
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As16()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	for i := bits; i < 128; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		return a.Unmap()
	}
	return a
}
