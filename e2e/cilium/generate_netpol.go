package cilium

import (
	"slices"
	"strings"
)

// networkPolicy is one of Kubernetes' own, always a right one.
func (g generator) networkPolicy(name string) document {
	meta := document{"name": name}
	if g.oneIn(2) {
		meta["namespace"] = pick(g, "default", "other", "shop")
	}
	spec := document{"podSelector": document{}}
	if g.oneIn(2) {
		spec["podSelector"] = g.podSelector(false)
	}
	if g.IntN(3) > 0 {
		spec["ingress"] = g.list(0, 2, func() any { return g.networkRule("from") })
	}
	if g.IntN(3) > 0 {
		spec["egress"] = g.list(0, 2, func() any { return g.networkRule("to") })
	}
	// Of a direction with rules, policyTypes must say so: see rules-of-no-type.
	types := []any{}
	for _, name := range []string{"Egress", "Ingress"} {
		if rules, _ := spec[strings.ToLower(name)].([]any); len(rules) > 0 || g.oneIn(3) {
			types = append(types, name)
		}
	}
	if len(types) > 0 && (g.oneIn(2) || !slices.Contains(types, any("Ingress"))) {
		spec["policyTypes"] = types
	}
	return document{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
}

func (g generator) networkRule(peers string) any {
	r := document{}
	switch {
	case g.IntN(5) > 0:
		r[peers] = g.list(1, 2, func() any { return g.networkPeer() })
	case g.oneIn(2):
		r[peers] = pick[any](g, nil, []any{})
	}
	if g.IntN(3) > 0 {
		r["ports"] = g.list(1, 3, func() any { return g.networkPort() })
	}
	return r
}

func (g generator) networkPeer() any {
	switch g.IntN(5) {
	case 0:
		return document{"ipBlock": g.cidrSet()}
	case 1:
		return document{"namespaceSelector": g.podSelector(true)}
	case 2:
		return document{"namespaceSelector": g.podSelector(true), "podSelector": g.podSelector(false)}
	}
	return document{"podSelector": g.podSelector(false)}
}

// podSelector is over labels of pods or of namespaces, which have no source.
func (g generator) podSelector(ofNamespaces bool) document {
	values := map[string][]string{"app": {"a", "b", "c", "d"}, "tier": {"x", "y"}, "image": {"nginx"}}
	if ofNamespaces {
		values = map[string][]string{"team": {"red", "blue"}, "kubernetes.io/metadata.name": {"default", "other", "nowhere"}}
	}
	key := pick(g, sortedKeys(values)...)
	switch g.IntN(4) {
	case 0:
		return document{}
	case 1:
		e := document{"key": key, "operator": pick(g, "In", "NotIn", "Exists", "DoesNotExist")}
		if e["operator"] == "In" || e["operator"] == "NotIn" {
			e["values"] = []any{pick(g, values[key]...)}
		}
		return document{"matchExpressions": []any{e}}
	}
	return document{"matchLabels": document{key: pick(g, values[key]...)}}
}

func (g generator) networkPort() document {
	p := document{}
	if g.IntN(3) > 0 {
		p["protocol"] = pick(g, "TCP", "TCP", "UDP", "SCTP")
	}
	if g.oneIn(6) {
		return p
	}
	first := pick(g, ports...)
	p["port"] = first
	if g.oneIn(4) {
		p["endPort"] = min(65535, first+last(g, false))
	}
	return p
}
