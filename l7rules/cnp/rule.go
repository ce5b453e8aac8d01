package cnp

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// rule reads one entry of a list of rules.
func (r *reader) rule(n *node, path string, rule *l7rules.Rule, d *document) {
	prefix := "to"
	if rule.Direction == flow.Ingress {
		prefix = "from"
	}
	o, ok := r.Object(n, path, prefix+"Endpoints", prefix+"Entities", prefix+"CIDR", prefix+"CIDRSet", "toFQDNs", "toPorts")
	if !ok {
		return
	}
	members := 0
	present := func(name string, each func(*node, string)) {
		at := join(path, name)
		items, present := r.List(o.Get(name), at)
		if !present {
			return
		}
		if members++; members == 2 {
			r.Errorf(o.Get(name).Pos, at, "a second L3 member: an entry has one of %s; write two entries", l3Members(rule))
		}
		for i, item := range items {
			each(item, index(at, i))
		}
	}
	peers := &rule.Peers
	present(prefix+"Endpoints", func(n *node, at string) { peers.Endpoints = append(peers.Endpoints, r.peer(n, at, d)) })
	present(prefix+"Entities", func(n *node, at string) { peers.Entities = append(peers.Entities, r.entity(n, at)) })
	present(prefix+"CIDR", func(n *node, at string) {
		if p, ok := r.prefix(n, at); ok {
			peers.CIDRs = append(peers.CIDRs, l7rules.CIDR{Prefix: p})
		}
	})
	present(prefix+"CIDRSet", func(n *node, at string) { peers.CIDRs = append(peers.CIDRs, r.cidrSet(n, at)) })

	switch f := o.Get("toFQDNs"); {
	case f != nil && rule.Direction == flow.Ingress:
		r.Errorf(f.Pos, join(path, "toFQDNs"), "names are for egress: whoever connects shows an address, which is no name")
	case f != nil && rule.Deny:
		r.Errorf(f.Pos, join(path, "toFQDNs"), "names cannot be denied: the address stays open under another name; allow by name instead, and nothing else")
	default:
		present("toFQDNs", func(n *node, at string) { peers.Names = append(peers.Names, r.fqdn(n, at)...) })
	}

	ports, _ := r.List(o.Get("toPorts"), join(path, "toPorts"))
	for i, p := range ports {
		rule.Ports = append(rule.Ports, r.portRule(p, index(join(path, "toPorts"), i), rule, d))
	}
	rule.AnyPort = len(ports) == 0
	// An entry with nothing in it, [{}], is how a direction is closed: it names nobody.
	peers.Any = members == 0 && len(ports) > 0
}

// l3Members are the fields that say whom an entry is about.
func l3Members(rule *l7rules.Rule) string {
	switch {
	case rule.Direction == flow.Ingress:
		return "fromEndpoints, fromEntities, fromCIDR, fromCIDRSet"
	case rule.Deny:
		return "toEndpoints, toEntities, toCIDR, toCIDRSet"
	}
	return "toEndpoints, toEntities, toCIDR, toCIDRSet, toFQDNs"
}

func (r *reader) entity(n *node, path string) l7rules.Entity {
	s, ok := r.String(n, path)
	if !ok {
		return ""
	}
	var names []string
	for _, e := range l7rules.Entities() {
		names = append(names, string(e))
	}
	e := l7rules.Entity(s)
	switch near := nearest(s, names); {
	case !slices.Contains(names, s) && near != "":
		r.Errorf(n.Pos, path, "unknown entity %s: did you mean %s?", quote(s), near)
	case !slices.Contains(names, s):
		r.Errorf(n.Pos, path, "unknown entity %s: one of %s", quote(s), strings.Join(names, ", "))
	case !e.Inhabited():
		r.Warnf(n.Pos, path, "nobody is %s here: the entity selects nothing", s)
	}
	return e
}

func (r *reader) cidrSet(n *node, path string) (c l7rules.CIDR) {
	o, ok := r.Object(n, path, "cidr", "except")
	if !ok {
		return c
	}
	cidr := o.Get("cidr")
	if cidr == nil {
		if len(o.Entries) == 0 || o.Fields["except"] != nil {
			r.Errorf(o.Pos, join(path, "cidr"), "missing")
		}
		return c
	}
	if c.Prefix, ok = r.prefix(cidr, join(path, "cidr")); !ok {
		return c
	}
	except, _ := r.List(o.Get("except"), join(path, "except"))
	for i, e := range except {
		at := index(join(path, "except"), i)
		p, ok := r.prefix(e, at)
		if !ok {
			continue
		}
		if p.Bits() < c.Prefix.Bits() || !c.Prefix.Contains(p.Addr()) {
			r.Errorf(e.Pos, at, "%s is not inside %s", p, c.Prefix)
		}
		c.Except = append(c.Except, p)
	}
	return c
}

// prefix reads a CIDR.
func (r *reader) prefix(n *node, path string) (netip.Prefix, bool) {
	s, ok := r.String(n, path)
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			r.Errorf(n.Pos, path, "%s has no length: write %s/%d", s, s, a.BitLen())
		} else {
			r.Errorf(n.Pos, path, "%s is no prefix such as 10.0.0.0/8 or fd00::/8", quote(s))
		}
		return p, false
	}
	if p.Addr().Is4In6() {
		r.Errorf(n.Pos, path, "%s is IPv4 in IPv6: write the IPv4 prefix", s)
		return p, false
	}
	if m := p.Masked(); m != p {
		r.Warnf(n.Pos, path, "%s is read as %s", s, m)
		p = m
	}
	return p, true
}
