package cilium

import (
	"slices"
	"strings"
)

// oddValues are by the name of the field.
var oddValues = map[string][]any{
	"port":         {80, "080", "0x50", "1_000", "65536", "70000", "-1", "http", "HTTP", "80-90", "00", " 80", "80 ", "", "1e3", "a-b", "0"},
	"endPort":      {"90", 0, 1, 79, 65535, 65536, -1, 1.5},
	"protocol":     {"tcp", "SCTP", "ICMP", "any", "", "VRRP", 6, "HTTP"},
	"operator":     {"Is", "in", "", "Exists", "In", "DoesNotExist"},
	"values":       {[]any{}, nil, []any{""}, []any{"a", "a"}, []any{"a b"}, []any{strings.Repeat("x", 64)}, []any{1}},
	"cidr":         {"203.0.113.9", "203.0.113.0/33", "203.0.113.0/024", "::ffff:10.0.0.0/104", "", "10/8", "fe80::1%eth0/64", "203.0.113.256/24", "2001:db8::/129"},
	"method":       {"*", "", "(", "GET ", "G[", `\C`, strings.Repeat("a", 5000), "(?P<x>a)", "a{1001}", `\1`, "(?=a)", 1},
	"path":         {"*", "", "(", "public", "/a(", "/((a{100}){100}){100}", "/a\nb", `\Q`, `\pZ`, `/\u00e9`, "(?U)/a+", "/[[:alpha:]]"},
	"host":         {"*", "", "API.test", "*.test", "api.test:80", 1},
	"matchName":    {"", ".", "a..test", "*.test", "a b", "a.test..", strings.Repeat("a", 64) + ".test", strings.Repeat("a.", 128), "_x.test", "A.TEST", "-a.test", 1, "test"},
	"matchPattern": {"", ".", "*", "**", "***", "**.", "*.", "a.*", "a**b.test", "**a.test", "a.**.test", "***.test", "a b", "*..test", "(", strings.Repeat("*", 256), 1, ".a.test"},
	"serverNames":  {[]any{}, []any{""}, nil, []any{"a.test", "a.test"}, []any{"*"}, []any{"**"}, []any{"*a.test"}, []any{"a.*.test"}, []any{"***.test"}, []any{"a.test."}, []any{"A.test"}, "a.test", []any{"*.*.test"}},
	"topic":        {"", "a b", "a*", strings.Repeat("a", 256), "a.b_c-d", 1, "é"},
	"apiKey":       {"", "fetch", "Fetch", "produce", "nosuch", "1", "0", 1, "createtopics", "saslauthenticate"},
	"role":         {"", "produce", "Produce", "admin", 1},
	"clientID":     {"", "a b", 1},
	"mismatch":     {"", "LOG", "ADD", "DELETE", "REPLACE", "log", 1},
	"value":        {"", " 1", "a\nb", 1, nil},
	"headers":      {[]any{"X-A:1"}, []any{"X-A:"}, []any{""}, []any{": 1"}, []any{":path /a"}, []any{"Host: a"}, []any{"X-A:  1"}, []any{"X A: 1"}, []any{"X-A: "}, []any{" X-A"}, "X-A: 1", []any{"X-A:: 1"}, []any{"X-A\t1"}, []any{1}},
	"name":         {"", "UPPER", "a b", "a.b", "-a", strings.Repeat("a", 254), 1, nil},
	"namespace":    {"", "UPPER", "a.b", "kube-system", strings.Repeat("a", 64), 1, nil},
	"kind":         {"ciliumnetworkpolicy", "Pod", "", "CiliumNetworkPolicyList"},
	"apiVersion":   {"0", "1", "-1", "01", "32768", "a", 1, "cilium.io/v1", "v2", "", "cilium.io/v2alpha1", nil},
	"description":  {1, "", nil, []any{}, document{}},
	"except":       {[]any{"198.51.100.0/24"}, []any{"203.0.0.0/8"}, []any{"::/0"}, []any{""}, []any{"203.0.113.9"}, nil, []any{}, []any{"203.0.113.9/32", "203.0.113.9/32"}},
	"ingress":      {nil, []any{}, []any{nil}, document{}, false, true, "yes"},
	"egress":       {nil, []any{}, []any{nil}, document{}, false, true, "yes"},
	"rules":        {nil, document{}, []any{}, document{"http": nil}, document{"http": []any{nil}}, document{"http": document{}}},
	"toPorts":      {nil, []any{}, []any{nil}, document{}},
	"ports":        {nil, []any{}, []any{nil}, []any{document{}}, []any{document{"port": "80"}}, slices.Repeat([]any{document{"port": "80", "protocol": "TCP"}}, 40), slices.Repeat([]any{document{"port": "80", "protocol": "TCP"}}, 41)},
	"specs":        {nil, []any{}, []any{nil}},
	"spec":         {nil, []any{}, document{}, "x"},
	"key":          {"", "a b", "k8s:", ":a", "a:b:c", "-a", "a/b", "a/b/c", "reserved:host", "k8s.app", strings.Repeat("x", 64), "any:", "a=b", 1, "APP", "cidr:10.0.0.0/8"},
	"matchLabels": {nil, document{}, document{"a b": "x"}, document{"app": "a b"}, document{"app": nil}, document{"app": 1}, document{"app": ""}, document{"": "x"},
		document{"app": strings.Repeat("x", 64)}, document{"app": "-a"}, document{"k8s:app/x": "a"}, document{"app": "a,b"}, document{"reserved:none": ""}, document{"k8s.app": "a"},
		document{"UPPER:app": "a"}, document{"a:b:c": "x"}, document{"app": true}, []any{}, document{"cidr:10.0.0.0/8": ""}},
	"matchExpressions": {nil, []any{}, []any{nil}, []any{document{}}, []any{document{"key": "app"}}, []any{document{"operator": "Exists"}}},
}
