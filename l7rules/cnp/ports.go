package cnp

import (
	"slices"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// maxPorts is how many ports one element of toPorts may list, as in Cilium's schema.
const maxPorts = 40

// ports is a list of ports and what request rules may be beside it.
type ports struct {
	ranges []l7rules.PortRange
	at     pos
	none   bool // nothing is in it
	tcp    bool // all are ports of TCP, none is "0"
	dns    bool // all are single ports of TCP or UDP, none is "0"
}

// portRule reads one element of toPorts.
func (r *reader) portRule(n *node, path string, rule *l7rules.Rule, d *document) l7rules.PortRule {
	pr := l7rules.PortRule{Origin: r.Origin(n.Pos)}
	o, ok := r.Object(n, path, "ports", "rules", "serverNames")
	if !ok {
		return pr
	}
	before := r.Failed()
	list := r.portList(o, join(path, "ports"))
	portsFailed := r.Failed() > before
	pr.Ports = list.ranges
	rules, names := o.Get("rules"), o.Get("serverNames")
	if rule.Deny && !d.ours() {
		for field, n := range map[string]*node{"rules": rules, "serverNames": names} {
			if n != nil {
				r.Errorf(n.Pos, join(path, field), "deny rules have no request rules in %s: leave them out, which denies the whole port, or write kind: %s of %s, which has them", d.version, kindOurs, versionOurs)
			}
		}
		return pr
	}
	if rules != nil {
		r.rules(rules, join(path, "rules"), &pr, rule.Deny, d)
	}
	if names != nil {
		r.serverNames(names, join(path, "serverNames"), &pr)
	}
	if pr.Protocol == l7rules.DNS {
		pr.Ports = slices.DeleteFunc(pr.Ports, func(p l7rules.PortRange) bool { return p.Proto == l7rules.ProtoSCTP })
	}
	if r.Failed() == before && !portsFailed {
		r.checkPorts(o, path, &pr, &list, rule)
	}
	return pr
}

// checkPorts finds request rules that cannot be for the ports beside them.
func (r *reader) checkPorts(o *object, path string, pr *l7rules.PortRule, list *ports, rule *l7rules.Rule) {
	at, place := join(path, "rules."+string(pr.Protocol)), o.Pos
	if n := o.Get("rules"); n != nil {
		place = n.Pos
	}
	switch {
	case pr.Protocol == l7rules.DNS && rule.Direction == flow.Ingress:
		r.Errorf(place, at, "dns rules are for egress: they judge what an endpoint asks, not what it is asked")
	case pr.Protocol == l7rules.DNS && list.none:
		r.Errorf(place, at, "dns rules need the port: write ports: [{port: \"53\", protocol: ANY}]")
	case pr.Protocol == l7rules.DNS && !list.dns:
		r.Errorf(place, at, "dns rules need single ports, without endPort and other than \"0\": write port: \"53\"")
	case list.none:
		r.Warnf(o.Pos, path, "without ports it covers nothing")
	case pr.Protocol == l7rules.TLS && !list.tcp:
		r.Errorf(o.Get("serverNames").Pos, join(path, "serverNames"), "serverNames need protocol: TCP and a port other than \"0\" on every port beside them")
	case pr.Protocol != "" && pr.Protocol != l7rules.DNS && !list.tcp:
		r.Errorf(place, at, "%s rules need protocol: TCP and a port other than \"0\" on every port beside them", pr.Protocol)
	}
}

func (r *reader) portList(o *object, path string) ports {
	list, _ := r.List(o.Get("ports"), path)
	all := ports{at: o.Pos, none: len(list) == 0, tcp: true, dns: true}
	if len(list) > maxPorts {
		r.Errorf(o.Get("ports").Pos, path, "%d ports: at most %d per entry; write several entries, or endPort", len(list), maxPorts)
		list = list[:maxPorts]
	}
	for i, n := range list {
		r.port(n, index(path, i), &all)
	}
	return all
}

// port reads one element of ports.
func (r *reader) port(n *node, path string, all *ports) {
	o, ok := r.Object(n, path, "port", "endPort", "protocol")
	if !ok {
		return
	}
	before := r.Failed()
	var first uint16
	if p := o.Get("port"); p == nil {
		r.Errorf(o.Pos, join(path, "port"), "missing: \"0\" is every port")
	} else {
		first, _ = r.portNumber(p, join(path, "port"))
	}
	last := first
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
	protos := []uint8{l7rules.ProtoTCP, l7rules.ProtoUDP, l7rules.ProtoSCTP}
	tcp := false
	if p := o.Get("protocol"); p != nil {
		switch s := r.protocol(p, join(path, "protocol"), "TCP", "UDP", "ANY"); s {
		case "TCP":
			protos, tcp = []uint8{l7rules.ProtoTCP}, true
		case "UDP":
			protos = []uint8{l7rules.ProtoUDP}
		}
	}
	if r.Failed() > before {
		return
	}
	all.tcp = all.tcp && tcp && first != 0
	all.dns = all.dns && first == last
	for _, proto := range protos {
		all.ranges = append(all.ranges, l7rules.PortRange{Proto: proto, First: first, Last: last})
	}
}

// protocol reads the name of an IP protocol, "" if it is none of known.
func (r *reader) protocol(n *node, path string, known ...string) string {
	s, ok := r.String(n, path)
	if !ok || slices.Contains(known, s) {
		return s
	}
	hint := "one of " + strings.Join(known, ", ")
	if near := nearest(s, known); strings.EqualFold(near, s) {
		hint = "write " + near
	}
	r.Errorf(n.Pos, path, "unknown protocol %s: %s", quote(s), hint)
	return ""
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
	case err == nil && len(s) > 1 && s[0] == '0':
		r.Errorf(n.Pos, path, "%s begins with 0, which Cilium reads as octal: write \"%d\"", quote(s), v)
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
