package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/l7rules/cnp"
)

// policy is a document named by its namespace and name with one rule.
func policy(name, rule string) string {
	namespace, name, _ := strings.Cut(name, "/")
	return fmt.Sprintf("---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {namespace: %s, name: %s}\nspec:\n  endpointSelector: {matchLabels: {app: a}}\n  %s\n", namespace, name, rule)
}

const (
	toHost  = "egress: [{toEntities: [host]}]"
	toWorld = "egress: [{toEntities: [world]}]"
	getOnly = `egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{method: GET, path: /a}]}}]}]`
)

func write1(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, texts ...string) *policySet {
	t.Helper()
	dir := t.TempDir()
	for i, text := range texts {
		write1(t, filepath.Join(dir, fmt.Sprintf("%d.yaml", i)), text)
	}
	s, err := loadPolicies([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDifference(t *testing.T) {
	a, b := policy("x/a", toHost), policy("x/b", getOnly)
	for name, c := range map[string]struct {
		before, after []string
		want          string
	}{
		"nothing":               {[]string{a, b}, []string{a, b}, ""},
		"another place":         {[]string{a + b}, []string{b, "# comment\n\n" + a}, ""},
		"another way to say it": {[]string{b}, []string{strings.ReplaceAll(b, `"80"`, `'80'`)}, ""},
		"added":                 {[]string{a}, []string{a, b}, "added x/b"},
		"removed":               {[]string{a, b}, []string{b}, "removed x/a"},
		"renamed":               {[]string{a}, []string{policy("x/c", toHost)}, "added x/c removed x/a"},
		"changed":               {[]string{a, b}, []string{policy("x/a", toWorld), b}, "changed x/a"},
		"a method":              {[]string{b}, []string{strings.ReplaceAll(b, "GET", "PUT")}, "changed x/b"},
		"a path":                {[]string{b}, []string{strings.ReplaceAll(b, "/a", "/b")}, "changed x/b"},
		"a port":                {[]string{b}, []string{strings.ReplaceAll(b, "80", "81")}, "changed x/b"},
		"the subject":           {[]string{a}, []string{strings.ReplaceAll(a, "app: a", "app: b")}, "changed x/a"},
		"open":                  {[]string{a}, []string{a + "  enableDefaultDeny: {egress: false}\n"}, "changed x/a"},
		"deny":                  {[]string{a}, []string{strings.ReplaceAll(a, "egress:", "egressDeny:")}, "changed x/a"},
		"direction":             {[]string{a}, []string{strings.NewReplacer("egress:", "ingress:", "toEntities", "fromEntities").Replace(a)}, "changed x/a"},
		"one of the same name":  {[]string{a, policy("x/a", toWorld)}, []string{a}, "changed x/a"},
		"an exception": {[]string{policy("x/a", "egress: [{toCIDRSet: [{cidr: 10.0.0.0/8}]}]")},
			[]string{policy("x/a", "egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}]")}, "changed x/a"},
		"a header": {[]string{strings.ReplaceAll(b, "method: GET", `headers: ["A: 1"]`)}, []string{strings.ReplaceAll(b, "method: GET", `headers: ["A: 2"]`)}, "changed x/b"},
	} {
		d := load(t, c.after...).since(load(t, c.before...))
		got := strings.TrimSuffix(fmt.Sprintln(d.args()...), "\n")
		if got != c.want || d.empty() != (c.want == "") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if d := load(t, a).since(nil); fmt.Sprint(d.added) != "[x/a]" {
		t.Errorf("first: %+v", d)
	}
}

// A policy's description holds whatever can be said in one: no two of these are equal.
func TestDescribe(t *testing.T) {
	seen := map[string]string{}
	for _, rule := range []string{
		toHost, toWorld, getOnly,
		"egress: [{}]", "ingress: [{}]", "egressDeny: [{}]", "egress: [{}, {}]",
		"egress: [{toEndpoints: [{}]}]",
		"egress: [{toEndpoints: [{matchLabels: {app: b}}]}]",
		"egress: [{toEndpoints: [{matchExpressions: [{key: app, operator: NotIn, values: [b]}]}]}]",
		"egress: [{toCIDR: [10.0.0.0/8]}]", "egress: [{toCIDR: [10.0.0.0/9]}]",
		`egress: [{toPorts: [{ports: [{port: "80"}]}]}]`,
		`egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}]}]}]`,
		`egress: [{toPorts: [{ports: [{port: "80", protocol: UDP}]}]}]`,
		`egress: [{toPorts: [{ports: [{port: "80", endPort: 81}]}]}]`,
		`egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{}]}}]}]`,
		`egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{host: a}]}}]}]`,
		`egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{headers: ["A"]}]}}]}]`,
		`egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{headerMatches: [{name: A, mismatch: LOG}]}]}}]}]`,
		`egress: [{toFQDNs: [{matchName: a.test}]}]`, `egress: [{toFQDNs: [{matchPattern: "*.a.test"}]}]`,
		`egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {dns: [{matchName: a.test}]}}]}]`,
		`egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], serverNames: [a.test]}]}]`,
		`egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {kafka: [{topic: a}]}}]}]`,
		`egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {kafka: [{role: produce, topic: a}]}}]}]`,
		`egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {kafka: [{apiVersion: "0", topic: a}]}}]}]`,
	} {
		list, _, err := cnp.Parse("a.yaml", []byte(policy("x/a", rule)))
		if err != nil {
			t.Fatal(err)
		}
		text := describe(list[0])
		if other, ok := seen[text]; ok {
			t.Errorf("%s and %s are both %s", rule, other, text)
		}
		seen[text] = rule
	}
}

func TestLoadPolicies(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	write1(t, good, policy("x/a", toHost))
	write1(t, bad, strings.ReplaceAll(policy("x/b", toHost), "egress", "egres"))
	names := filepath.Join(t.TempDir(), "names.yaml")
	write1(t, names, policy("x/c", "egress: [{toFQDNs: [{matchName: a.test}]}]"))
	for name, c := range map[string]struct {
		paths []string
		want  string // of the error
	}{
		"not enforced":    {[]string{good, names}, "names.yaml:7:12: x/c: toFQDNs is not enforced yet"},
		"none":            {nil, ""},
		"a file":          {[]string{good}, ""},
		"empty directory": {[]string{good, empty}, "empty: no .yaml or .yml file in this directory"},
		"missing":         {[]string{good, filepath.Join(dir, "missing")}, "missing: no such file or directory"},
		"bad":             {[]string{dir}, "bad.yaml:7:3: spec.egres: "},
	} {
		s, err := loadPolicies(c.paths)
		if c.want == "" && (err != nil || len(s.policies) != len(c.paths)) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
