package cnp

import (
	"slices"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// namespaceNameKey is the label that every namespace has (Kubernetes 1.22): its name.
const namespaceNameKey = "kubernetes.io/metadata.name"

// networkPolicy reads the spec of a NetworkPolicy. It differs from Cilium's in what is
// not there: no peers means everybody, an entry with nothing in it allows everything.
func (r *reader) networkPolicy(n *node, path string, d *document) {
	o, ok := r.Object(n, path, "podSelector", "policyTypes", "ingress", "egress")
	if !ok {
		return
	}
	p := &l7rules.Policy{Kind: d.kind.name, Namespace: d.namespace, Name: d.name, Origin: r.Origin(n.Pos)}
	d.policies = append(d.policies, p)
	own := namespaceIs(d.namespace)
	if s := o.Get("podSelector"); s != nil {
		p.Subject = r.k8sSelector(s, join(path, "podSelector"), "", own)
	} else {
		r.Errorf(o.Pos, join(path, "podSelector"), "missing: {} selects every workload of the namespace")
	}
	// Where policyTypes is not there, ingress closes, and egress if there are rules for it.
	p.Closes = [2]bool{flow.Ingress: true}
	egress, _ := r.List(o.Get("egress"), join(path, "egress"))
	p.Closes[flow.Egress] = len(egress) > 0
	types, present := r.List(o.Get("policyTypes"), join(path, "policyTypes"))
	if present && len(types) > 0 {
		p.Closes = [2]bool{}
		for i, t := range types {
			at := index(join(path, "policyTypes"), i)
			switch s, ok := r.String(t, at); {
			case !ok:
			case s == "Ingress":
				p.Closes[flow.Ingress] = true
			case s == "Egress":
				p.Closes[flow.Egress] = true
			default:
				r.Errorf(t.Pos, at, "unknown type %s: Ingress or Egress", quote(s))
			}
		}
	}
	for _, l := range []struct {
		name, peers string
		dir         flow.Direction
	}{{"egress", "to", flow.Egress}, {"ingress", "from", flow.Ingress}} {
		at := join(path, l.name)
		items, _ := r.List(o.Get(l.name), at)
		if len(items) > 0 && !p.Closes[l.dir] {
			r.Warnf(o.Get(l.name).Pos, at, "no effect: policyTypes does not name it")
		}
		for i, item := range items {
			rule := l7rules.Rule{Direction: l.dir, Index: i, Origin: r.Origin(item.Pos)}
			r.networkRule(item, index(at, i), l.peers, &rule, d)
			if p.Closes[l.dir] {
				p.Rules = append(p.Rules, rule)
			}
		}
	}
}

// networkRule reads one entry of ingress or egress.
func (r *reader) networkRule(n *node, path, field string, rule *l7rules.Rule, d *document) {
	o, ok := r.Object(n, path, field, "ports")
	if !ok {
		return
	}
	peers, _ := r.List(o.Get(field), join(path, field))
	for i, p := range peers {
		r.networkPeer(p, index(join(path, field), i), &rule.Peers, d)
	}
	rule.Peers.Any = len(peers) == 0
	list, _ := r.List(o.Get("ports"), join(path, "ports"))
	rule.AnyPort = len(list) == 0
	if rule.AnyPort {
		return
	}
	pr := l7rules.PortRule{Origin: r.Origin(o.Get("ports").Pos)}
	for i, p := range list {
		if ports, ok := r.networkPort(p, index(join(path, "ports"), i)); ok {
			pr.Ports = append(pr.Ports, ports)
		}
	}
	rule.Ports = []l7rules.PortRule{pr}
}

func (r *reader) networkPeer(n *node, path string, peers *l7rules.Peers, d *document) {
	o, ok := r.Object(n, path, "podSelector", "namespaceSelector", "ipBlock")
	if !ok {
		return
	}
	pod, ns, block := o.Get("podSelector"), o.Get("namespaceSelector"), o.Get("ipBlock")
	switch {
	case block != nil && (pod != nil || ns != nil):
		r.Errorf(block.Pos, join(path, "ipBlock"), "ipBlock stands alone: write two list items")
	case block != nil:
		peers.CIDRs = append(peers.CIDRs, r.cidrSet(block, join(path, "ipBlock")))
		return
	case pod == nil && ns == nil:
		if len(o.Fields) == len(o.Entries) {
			r.Errorf(o.Pos, path, "nothing in it: podSelector, namespaceSelector or ipBlock; podSelector: {} is every workload of the namespace")
		}
		return
	}
	var reqs []identity.Requirement
	if ns == nil {
		reqs = append(reqs, namespaceIs(d.namespace))
	} else {
		reqs = append(reqs, r.k8sRequirements(ns, join(path, "namespaceSelector"), namespaceLabelsPrefix)...)
		// Whoever has no namespace is in none.
		reqs = append(reqs, identity.Requirement{Source: identity.SourceK8s, Key: identity.NamespaceKey, Op: identity.Exists})
	}
	if pod != nil {
		reqs = append(reqs, r.k8sRequirements(pod, join(path, "podSelector"), "")...)
	}
	peers.Endpoints = append(peers.Endpoints, r.selector(n, path, reqs))
}

func (r *reader) k8sSelector(n *node, path, prefix string, more ...identity.Requirement) identity.Selector {
	return r.selector(n, path, append(r.k8sRequirements(n, path, prefix), more...))
}

// k8sRequirements reads a selector of Kubernetes: its keys have no source and mean k8s.
func (r *reader) k8sRequirements(n *node, path, prefix string) (all []identity.Requirement) {
	reqs, _ := r.requirements(n, path)
	for _, q := range reqs {
		if q.Source != identity.SourceAny {
			r.Errorf(q.pos, q.path, "a label of Kubernetes has no source: write %s", q.Key)
			continue
		}
		q.Source, q.Key = identity.SourceK8s, prefix+q.Key
		all = append(all, namespaceByName(q.Requirement))
	}
	return all
}

// namespaceByName turns the label that every namespace has into the one that every
// workload has: nobody needs to configure the first.
func namespaceByName(q identity.Requirement) identity.Requirement {
	known := q.Source == identity.SourceK8s || q.Source == identity.SourceAny
	if known && q.Key == namespaceLabelsPrefix+namespaceNameKey {
		q.Source, q.Key = identity.SourceK8s, identity.NamespaceKey
	}
	return q
}

// networkPort reads one element of ports.
func (r *reader) networkPort(n *node, path string) (l7rules.PortRange, bool) {
	ports := l7rules.PortRange{Proto: l7rules.ProtoTCP, Last: 65535}
	o, ok := r.Object(n, path, "port", "protocol", "endPort")
	if !ok {
		return ports, false
	}
	before := r.Failed()
	if p := o.Get("protocol"); p != nil {
		switch r.protocol(p, join(path, "protocol"), "TCP", "UDP", "SCTP") {
		case "UDP":
			ports.Proto = l7rules.ProtoUDP
		case "SCTP":
			ports.Proto = l7rules.ProtoSCTP
		}
	}
	port, end := o.Get("port"), o.Get("endPort")
	switch at := join(path, "port"); {
	case port == nil:
	case port.Kind == kindScalar && (port.Quoted || !isNumber(port.Text)):
		if s, ok := r.String(port, at); ok && isNumber(s) {
			r.Errorf(port.Pos, at, "in quotes it is a name: write port: %s", s)
		} else if ok {
			r.Errorf(port.Pos, at, "named ports are not supported yet: write the number of %s", quote(s))
		}
	default:
		v, _ := r.Integer(port, at, 1, 65535)
		ports.First, ports.Last = uint16(v), uint16(v)
	}
	if end != nil {
		at := join(path, "endPort")
		v, ok := r.Integer(end, at, 1, 65535)
		switch {
		case !ok || r.Failed() > before:
		case port == nil:
			r.Errorf(end.Pos, at, "a range needs port, its first one")
		case v < int(ports.First):
			r.Errorf(end.Pos, at, "%d is below port %d", v, ports.First)
		}
		ports.Last = uint16(v)
	}
	return ports, r.Failed() == before
}

func isNumber(s string) bool {
	return s != "" && !slices.ContainsFunc([]byte(s), func(c byte) bool { return c < '0' || c > '9' })
}
