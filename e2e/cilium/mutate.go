package cilium

import "strings"

// mutate makes one random change to a document, most of which make it wrong, or
// nearly so.
func (g generator) mutate(doc document) document {
	doc = clone(doc).(document)
	all := places(doc)
	byKey := map[string][]place{}
	for _, p := range all {
		byKey[p.key] = append(byKey[p.key], p)
	}
	p := pick(g, byKey[pick(g, sortedKeys(byKey)...)]...) // rare fields as often as common ones
	switch g.IntN(6) {
	case 0:
		p.remove()
	case 1, 2:
		p.set(g.oddValue(p))
	case 3: // a value that belongs elsewhere
		other := pick(g, all...)
		for range 20 {
			if other.key == p.key {
				break
			}
			other = pick(g, all...)
		}
		p.set(clone(other.value))
	default:
		m, ok := p.value.(document)
		for range 20 {
			if ok {
				break
			}
			p = pick(g, all...)
			m, ok = p.value.(document)
		}
		if ok {
			g.addField(m)
		}
	}
	return doc
}

// oddValue is something that a field's reader may trip over.
func (g generator) oddValue(p place) any {
	if values := oddValues[p.key]; len(values) > 0 && g.IntN(5) > 0 {
		return clone(pick(g, values...))
	}
	if s, ok := p.value.(string); ok && p.key == "" && g.IntN(4) > 0 {
		if strings.Contains(s, "/") {
			return pick(g, oddValues["cidr"]...)
		}
		return pick[any](g, "world-ipv4", "world-ipv6", "mars", "World", "kube-apiserver", "init", "ingress", "unmanaged", "health", "", "a b", "cluster")
	}
	return pick[any](g, nil, "", "x", 0, 1, true, 1.5, []any{}, document{}, []any{nil}, []any{document{}})
}

// addField puts something beside the fields of a mapping: what belongs into another
// mapping, what Cilium knows and Weir does not, what nobody knows.
func (g generator) addField(m document) {
	secret := document{"secret": document{"name": "x"}}
	fields := []document{
		{"toPort": []any{}}, {"fromEndpoint": []any{}}, {"app": "a"}, {"action": "deny"}, {"labels": []any{}}, {"labels": document{"a": "b"}}, {"annotations": document{"a": "b"}},
		{"toFQDNs": []any{document{"matchName": "a.test"}}}, {"fromEntities": []any{"world"}}, {"toEntities": []any{"all"}}, {"fromEndpoints": []any{}}, {"toEndpoints": []any{document{}}},
		{"fromCIDR": []any{}}, {"toCIDR": []any{"10.0.0.0/8"}}, {"toCIDRSet": []any{document{}}}, {"fromCIDRSet": []any{document{"cidr": "10.0.0.0/8"}}},
		{"icmps": []any{document{"fields": []any{document{"type": 8}}}}}, {"nodeSelector": document{}}, {"authentication": document{"mode": "required"}},
		{"toServices": []any{document{"k8sService": document{"serviceName": "a"}}}}, {"toGroups": []any{document{}}}, {"fromNodes": []any{document{}}}, {"toNodes": []any{document{}}},
		{"fromRequires": []any{document{}}}, {"toRequires": []any{}}, {"log": document{"value": "x"}}, {"serverNames": []any{"a.test"}}, {"listener": document{"name": "x", "envoyConfig": document{"name": "y"}}},
		{"terminatingTLS": secret}, {"originatingTLS": secret}, {"l7proto": "x"}, {"l7": []any{document{}}}, {"dns": []any{document{"matchPattern": "*"}}}, {"kafka": []any{document{"topic": "a"}}}, {"apiKey": "fetch"}, {"role": "produce"}, {"secret": document{"name": "s"}}, {"matchName": "a.test"}, {"matchPattern": "*"}, {"kafka": []any{}}, {"dns": []any{}},
		{"http": []any{document{}}}, {"http": []any{}}, {"rules": document{"http": []any{document{}}}}, {"rules": document{"dns": []any{document{"matchPattern": "*"}}}}, {"endPort": 90}, {"except": []any{"203.0.113.9/32"}},
		{"cidrGroupRef": "g"}, {"cidrGroupSelector": document{}}, {"headerMatches": []any{document{"name": "X-A", "value": "1"}}}, {"matchLabels": document{"app": "a"}}, {"matchExpressions": []any{}},
		{"enableDefaultDeny": document{}}, {"enableDefaultDeny": document{"both": false}}, {"description": "x"}, {"status": document{}}, {"ingressDeny": []any{document{}}}, {"egressDeny": []any{document{}}},
		{"ingress": []any{document{}}}, {"namespace": "other"}, {"name": "q"}, {"protocol": "TCP"}, {"values": []any{"a"}}, {"podSelector": document{}}, {"policyTypes": []any{"Ingress"}}, {"x": 1}, {"specs": []any{}},
		{"creationTimestamp": nil}, {"uid": "1"}, {"audit": true}, {"grpc": []any{document{}}}, {"toPorts": []any{document{"ports": []any{document{"port": "80"}}}}},
	}
	for k, v := range pick(g, fields...) {
		if _, ok := m[k]; !ok {
			m[k] = v
		}
	}
}
