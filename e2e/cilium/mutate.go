package cilium

import "strings"

// mutate makes one random change to a document, most of which make it wrong, or
// nearly so.
func (g generator) mutate(doc document) document {
	doc = clone(doc).(document)
	all := places(doc)
	p := pick(g, all...)
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
	byKey := map[string][]any{
		"port":        {80, "080", "0x50", "1_000", "65536", "70000", "-1", "http", "HTTP", "80-90", "00", " 80", "80 ", "", "1e3", "a-b", "0"},
		"endPort":     {"90", 0, 1, 79, 65535, 65536, -1, 1.5},
		"protocol":    {"tcp", "SCTP", "ICMP", "any", "", "VRRP", 6, "HTTP"},
		"operator":    {"Is", "in", "", "Exists", "In", "DoesNotExist"},
		"values":      {[]any{}, nil, []any{""}, []any{"a", "a"}, []any{"a b"}, []any{strings.Repeat("x", 64)}, []any{1}},
		"cidr":        {"203.0.113.9", "203.0.113.0/33", "203.0.113.0/024", "::ffff:10.0.0.0/104", "", "10/8", "fe80::1%eth0/64", "203.0.113.256/24", "2001:db8::/129"},
		"method":      {"*", "", "(", "GET ", "G[", `\C`, strings.Repeat("a", 5000), "(?P<x>a)", "a{1001}", `\1`, "(?=a)", 1},
		"path":        {"*", "", "(", "public", "/a(", "/((a{100}){100}){100}", "/a\nb", `\Q`, `\pZ`, `/\u00e9`, "(?U)/a+", "/[[:alpha:]]"},
		"host":        {"*", "", "API.test", "*.test", "api.test:80", 1},
		"headers":     {[]any{"X-A:1"}, []any{"X-A:"}, []any{""}, []any{": 1"}, []any{":path /a"}, []any{"Host: a"}, []any{"X-A:  1"}, []any{"X A: 1"}, []any{"X-A: "}, []any{" X-A"}, "X-A: 1", []any{"X-A:: 1"}, []any{"X-A\t1"}, []any{1}},
		"name":        {"", "UPPER", "a b", "a.b", "-a", strings.Repeat("a", 254), 1, nil},
		"namespace":   {"", "UPPER", "a.b", "kube-system", strings.Repeat("a", 64), 1, nil},
		"kind":        {"ciliumnetworkpolicy", "Pod", "", "CiliumNetworkPolicyList"},
		"apiVersion":  {"cilium.io/v1", "v2", "", "cilium.io/v2alpha1", nil},
		"description": {1, "", nil, []any{}, document{}},
		"except":      {[]any{"198.51.100.0/24"}, []any{"203.0.0.0/8"}, []any{"::/0"}, []any{""}, []any{"203.0.113.9"}, nil, []any{}, []any{"203.0.113.9/32", "203.0.113.9/32"}},
		"ingress":     {nil, []any{}, []any{nil}, document{}, false, true, "yes"},
		"egress":      {nil, []any{}, []any{nil}, document{}, false, true, "yes"},
		"rules":       {nil, document{}, []any{}, document{"http": nil}, document{"http": []any{nil}}, document{"http": document{}}},
		"toPorts":     {nil, []any{}, []any{nil}, document{}},
		"ports":       {nil, []any{}, []any{nil}, []any{document{}}, []any{document{"port": "80"}}, g.list(39, 42, func() any { return document{"port": "80", "protocol": "TCP"} })},
		"specs":       {nil, []any{}, []any{nil}},
		"spec":        {nil, []any{}, document{}, "x"},
		"key":         {"", "a b", "k8s:", ":a", "a:b:c", "-a", "a/b", "a/b/c", "reserved:host", "k8s.app", strings.Repeat("x", 64), "any:", "a=b", 1, "APP", "cidr:10.0.0.0/8"},
		"matchLabels": {nil, document{}, document{"a b": "x"}, document{"app": "a b"}, document{"app": nil}, document{"app": 1}, document{"app": ""}, document{"": "x"},
			document{"app": strings.Repeat("x", 64)}, document{"app": "-a"}, document{"k8s:app/x": "a"}, document{"app": "a,b"}, document{"reserved:none": ""}, document{"k8s.app": "a"},
			document{"UPPER:app": "a"}, document{"a:b:c": "x"}, document{"app": true}, []any{}, document{"cidr:10.0.0.0/8": ""}},
		"matchExpressions": {nil, []any{}, []any{nil}, []any{document{}}, []any{document{"key": "app"}}, []any{document{"operator": "Exists"}}},
	}
	if values := byKey[p.key]; len(values) > 0 && g.IntN(5) > 0 {
		return pick(g, values...)
	}
	if s, ok := p.value.(string); ok && p.key == "" && g.IntN(4) > 0 {
		if strings.Contains(s, "/") {
			return pick(g, byKey["cidr"]...)
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
		{"terminatingTLS": secret}, {"originatingTLS": secret}, {"l7proto": "x"}, {"l7": []any{document{}}}, {"dns": []any{document{"matchPattern": "*"}}}, {"kafka": []any{document{"topic": "a"}}},
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
