package cnp

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// maxPorts is how many ports one element of toPorts may list, as in Cilium's schema.
const maxPorts = 40

// rule reads one entry of a list of rules.
func (r *reader) rule(n *node, path string, rule *l7rules.Rule, d *document) {
	prefix := "to"
	if rule.Direction == flow.Ingress {
		prefix = "from"
	}
	o, ok := r.Object(n, path, prefix+"Endpoints", prefix+"Entities", prefix+"CIDR", prefix+"CIDRSet", "toPorts")
	if !ok {
		return
	}
	members := 0
	present := func(name string, each func(*node, string)) {
		at := join(path, prefix+name)
		items, present := r.List(o.Get(prefix+name), at)
		if !present {
			return
		}
		if members++; members == 2 {
			r.Errorf(o.Get(prefix+name).Pos, at, "a second L3 member: an entry has one of %sEndpoints, %sEntities, %sCIDR, %sCIDRSet; write two entries", prefix, prefix, prefix, prefix)
		}
		for i, item := range items {
			each(item, index(at, i))
		}
	}
	peers := &rule.Peers
	present("Endpoints", func(n *node, at string) { peers.Endpoints = append(peers.Endpoints, r.peer(n, at, d)) })
	present("Entities", func(n *node, at string) { peers.Entities = append(peers.Entities, r.entity(n, at)) })
	present("CIDR", func(n *node, at string) {
		if p, ok := r.prefix(n, at); ok {
			peers.CIDRs = append(peers.CIDRs, l7rules.CIDR{Prefix: p})
		}
	})
	present("CIDRSet", func(n *node, at string) { peers.CIDRs = append(peers.CIDRs, r.cidrSet(n, at)) })

	ports, _ := r.List(o.Get("toPorts"), join(path, "toPorts"))
	for i, p := range ports {
		rule.Ports = append(rule.Ports, r.portRule(p, index(join(path, "toPorts"), i), rule.Deny))
	}
	rule.AnyPort = len(ports) == 0
	// An entry with nothing in it, [{}], is how a direction is closed: it names nobody.
	peers.Any = members == 0 && len(ports) > 0
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

// portRule reads one element of toPorts.
func (r *reader) portRule(n *node, path string, deny bool) l7rules.PortRule {
	pr := l7rules.PortRule{Origin: r.Origin(n.Pos)}
	o, ok := r.Object(n, path, "ports", "rules")
	if !ok {
		return pr
	}
	ports, _ := r.List(o.Get("ports"), join(path, "ports"))
	if len(ports) > maxPorts {
		r.Errorf(o.Get("ports").Pos, join(path, "ports"), "%d ports: at most %d per entry; write several entries, or endPort", len(ports), maxPorts)
		ports = ports[:maxPorts]
	}
	if len(ports) == 0 {
		r.Warnf(o.Pos, path, "without ports it covers nothing")
	}
	judgeable := true
	for i, p := range ports {
		ranges, tcp := r.port(p, index(join(path, "ports"), i))
		pr.Ports = append(pr.Ports, ranges...)
		judgeable = judgeable && tcp
	}
	rules := o.Get("rules")
	switch {
	case rules == nil:
	case deny:
		r.Errorf(rules.Pos, join(path, "rules"), "deny rules have no request rules in %s: leave them out, which denies the whole port, or allow only what is meant", apiVersion)
	default:
		before := r.Failed()
		r.rules(rules, join(path, "rules"), &pr)
		if pr.Protocol == l7rules.HTTP && !judgeable && r.Failed() == before {
			r.Errorf(rules.Pos, join(path, "rules.http"), "http rules need protocol: TCP and a port other than \"0\" on every port beside them")
		}
	}
	return pr
}

// port reads one element of ports, and whether it is a TCP port that request rules can be
// for.
func (r *reader) port(n *node, path string) (ranges []l7rules.PortRange, tcp bool) {
	o, ok := r.Object(n, path, "port", "endPort", "protocol")
	if !ok {
		return nil, true
	}
	before := r.Failed()
	var first, last uint16
	if p := o.Get("port"); p == nil {
		r.Errorf(o.Pos, join(path, "port"), "missing: \"0\" is every port")
	} else {
		first, _ = r.portNumber(p, join(path, "port"))
		last = first
	}
	if first == 0 {
		last = 65535
	}
	if e := o.Get("endPort"); e != nil {
		at := join(path, "endPort")
		if v, ok := r.Integer(e, at, 0, 65535); ok && v > 0 && r.Failed() == before {
			switch {
			case first == 0:
				r.Errorf(e.Pos, at, "port \"0\" is every port and begins no range")
			case v < int(first):
				r.Errorf(e.Pos, at, "%d is below port %d", v, first)
			}
			last = uint16(v)
		}
	}
	protos, tcp := []uint8{l7rules.ProtoTCP, l7rules.ProtoUDP, l7rules.ProtoSCTP}, false
	if p := o.Get("protocol"); p != nil {
		s, ok := r.String(p, join(path, "protocol"))
		switch {
		case !ok:
		case s == "TCP":
			protos, tcp = []uint8{l7rules.ProtoTCP}, first != 0
		case s == "UDP":
			protos = []uint8{l7rules.ProtoUDP}
		case s == "ANY":
		default:
			hint := "one of TCP, UDP, ANY"
			if near := nearest(s, []string{"TCP", "UDP", "ANY"}); strings.EqualFold(near, s) {
				hint = "write " + near
			}
			r.Errorf(p.Pos, join(path, "protocol"), "unknown protocol %s: %s", quote(s), hint)
		}
	}
	if r.Failed() > before {
		return nil, true
	}
	for _, proto := range protos {
		ranges = append(ranges, l7rules.PortRange{Proto: proto, First: first, Last: last})
	}
	return ranges, tcp
}

func (r *reader) portNumber(n *node, path string) (uint16, bool) {
	if n.Kind == kindScalar && !n.Quoted {
		if v, err := strconv.ParseInt(n.Text, 10, 64); err == nil {
			if v < 0 || v > 65535 {
				r.Errorf(n.Pos, path, "%d is no port: 1 to 65535, or \"0\" for every port", v)
			} else {
				r.Errorf(n.Pos, path, "must be a string: write port: \"%d\"", v)
			}
			return 0, false
		}
	}
	s, ok := r.String(n, path)
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseUint(s, 10, 16)
	switch {
	case err == nil:
		return uint16(v), true
	case strings.Trim(s, "-0123456789") == "":
		r.Errorf(n.Pos, path, "%s is no port: 1 to 65535, or \"0\" for every port", quote(s))
	case isPortName(s):
		r.Errorf(n.Pos, path, "named ports are not supported yet: write the number of %s", quote(s))
	default:
		r.Errorf(n.Pos, path, "%s is no port: 1 to 65535, or \"0\" for every port", quote(s))
	}
	return 0, false
}

// isPortName reports whether s is a service name (RFC 6335 section 5.1).
func isPortName(s string) bool {
	return len(s) <= 15 && isName(strings.ToLower(s), 15, false) && strings.ContainsAny(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz")
}
