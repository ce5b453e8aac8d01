package explain

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/l7rules/cnp"
)

// mutations plant one hole each into the policies of original.
var mutations = []struct{ name, old, new string }{
	{"path that goes on", `path: "/v1/items(/[0-9]+)?"`, `path: "/v1/items.*"`},
	{"path with a dot", `path: "/health"`, `path: "/h.alth"`},
	{"path without end", `path: "/health"`, `path: "/health[^/]*"`},
	{"any method", `method: "GET|HEAD", path: "/v1`, `method: ".*", path: "/v1`},
	{"no method", `{method: GET, path: "/health"}`, `{path: "/health"}`},
	{"no header", `, headers: ["X-Token: 42"]`, ``},
	{"any header value", `"X-Token: 42"`, `"X-Token"`},
	{"host with a dot", `host: "api\\.test"`, `host: "api.test"`},
	{"no request rules", "      rules: {http: [{method: GET, path: \"/health\"}]}\n", ""},
	{"extra port", `{port: "8080", protocol: TCP}`, `{port: "8080", protocol: TCP}, {port: "8081", protocol: TCP}`},
	{"range of ports", `{port: "5432", protocol: TCP}`, `{port: "5432", endPort: 5433, protocol: TCP}`},
	{"any protocol", `{port: "5432", protocol: TCP}`, `{port: "5432"}`},
	{"longer CIDR", `cidr: 10.1.0.0/16`, `cidr: 10.0.0.0/15`},
	{"missing exception", `, except: [10.1.7.0/24]`, ``},
	{"smaller exception", `except: [10.1.7.0/24]`, `except: [10.1.7.0/25]`},
	{"missing deny", "  ingressDeny:\n  - fromEndpoints: [{matchLabels: {tier: guest}}]\n", ""},
	{"deny of another", `tier: guest`, `tier: guests`},
	{"missing deny outside", "  egressDeny:\n  - toCIDR: [10.1.9.0/24]\n", ""},
	{"every namespace", `{app: api}}]`, `{app: api}, matchExpressions: [{key: "io.kubernetes.pod.namespace", operator: Exists}]}]`},
	{"another namespace", `{app: api}}]`, `{app: api}}, {matchLabels: {app: api, "k8s:io.kubernetes.pod.namespace": test}}]`},
	{"a label more", `{app: ci}}]`, `{app: ci}}, {matchLabels: {team: ci}}]`},
	{"everybody", `fromEndpoints: [{matchLabels: {app: ci}}]`, `fromEntities: [cluster]`},
	{"the world", `fromEndpoints: [{matchLabels: {app: ci}}]`, `fromEntities: [all]`},
	{"an open direction", `  # open`, `  enableDefaultDeny: {ingress: false}`},
	{"a subject that is another", `endpointSelector: {matchLabels: {app: db}}`, `endpointSelector: {matchLabels: {app: db, tier: x}}`},
}

// original is a set of policies, and claims that hold. The seed says what stands around
// the rules that matter.
func original(seed uint64) (text string, never, only []string) {
	g := rand.New(rand.NewPCG(seed, 1))
	more := func(s string) string {
		if g.IntN(2) == 0 {
			return ""
		}
		return s
	}
	text = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db}
spec:
  endpointSelector: {matchLabels: {app: db}}
  # open
  ingress:
` + more(`  - fromEndpoints: [{matchLabels: {app: backup}}]
    toPorts: [{ports: [{port: "22", protocol: TCP}]}]
`) + `  - fromEndpoints: [{matchLabels: {app: ci}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{method: GET, path: "/health"}]}
  - fromEndpoints: [{matchLabels: {app: api}}]
    toPorts:
    - ports: [{port: "5432", protocol: TCP}]
    - ports: [{port: "80", protocol: TCP}]
      rules:
        http:
        - {method: "GET|HEAD", path: "/v1/items(/[0-9]+)?", headers: ["X-Token: 42"]}
        - {method: "GET|HEAD", path: "/v2", host: "api\\.test"}
` + more(`        - {method: PUT, path: "/v1/extra"}
`) + `  ingressDeny:
  - fromEndpoints: [{matchLabels: {tier: guest}}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: api}
spec:
  endpointSelector: {matchLabels: {app: api}}
  egress:
  - toEndpoints: [{matchLabels: {app: db}}]
  - toCIDRSet: [{cidr: 10.1.0.0/16, except: [10.1.7.0/24]}]
` + more(`  - toEntities: [host]
    toPorts: [{ports: [{port: "53", protocol: ANY}]}]
`) + `  egressDeny:
  - toCIDR: [10.1.9.0/24]
` + more(`---
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: all}
spec:
  endpointSelector: {matchLabels: {app: other}}
  egress: [{toEntities: [cluster]}]
`)
	never = []string{
		"from app=ci to app=db http DELETE /.*",
		"from app=ci to app=db http .* /.{7}.+",
		`from app=api to app=db tcp/80 http .* /v1/items/new`,
		"from app=api to app=db tcp/80 http DELETE /v1/items",
		"from world to app=db",
		"from tier=guest to app=db",
		"from app=api to 10.1.7.0/24",
		"from app=api to 10.1.9.1",
		"from app=api,k8s:io.kubernetes.pod.namespace!=default,io.kubernetes.pod.namespace to app=db",
	}
	only = []string{
		"to app=db from app=api,tier!=guest tcp/5432",
		`to app=db from app=api,tier!=guest tcp/80 http GET|HEAD /v1/items(/[0-9]+)? header "X-Token: 42"`,
		`to app=db from app=api,tier!=guest tcp/80 http GET|HEAD /v2 host api\.test`,
		"to app=db from app=api,tier!=guest tcp/80 http PUT /v1/extra",
		"to app=db from app=ci,tier!=guest tcp/8080 http GET /health",
		"to app=db from app=backup,tier!=guest tcp/22",
		"from app=api to app=db", "from app=api to 10.1.0.0/16", "from app=api to host tcp/53", "from app=api to host udp/53",
		"from app=api to host sctp/53",
	}
	return text, never, only
}

// TestScalePlantedHoles proves 50 sets of policies, and finds what is wrong with each
// of 50 that have a hole.
func TestScalePlantedHoles(t *testing.T) {
	set := func(text string) *Set {
		policies, _, err := cnp.Parse("p.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return NewSet(policies, nil)
	}
	for i := 0; i < 50; i += slow {
		m := mutations[i%len(mutations)]
		text, never, only := original(uint64(i))
		proofs, err := set(text).Prove(never, only)
		if err != nil {
			t.Fatal(err)
		}
		for j := range proofs {
			if p := &proofs[j]; !p.Proved() {
				var b strings.Builder
				if err := p.WriteText(&b); err != nil {
					t.Fatal(err)
				}
				t.Errorf("original %d: %s", i, b.String())
			}
		}
		mutated := strings.Replace(text, m.old, m.new, 1)
		if mutated == text {
			t.Fatalf("%s: nothing to replace", m.name)
		}
		holed := set(mutated)
		if proofs, err = holed.Prove(never, only); err != nil {
			t.Fatal(err)
		}
		found := ""
		for j := range proofs {
			if p := &proofs[j]; p.Answer != nil {
				found = p.Query.Command()
			} else if p.Unknown != "" {
				t.Errorf("mutation %d, %s: %s", i, m.name, p.Unknown)
			}
		}
		if found == "" {
			t.Errorf("mutation %d, %s: everything is proved", i, m.name)
			continue
		}
		// It gets through because of the hole: the original stops it.
		for j := range proofs {
			if p := &proofs[j]; p.Answer != nil {
				if a, err := set(text).Ask(p.Query); err != nil || a.through() {
					t.Errorf("mutation %d, %s: %s gets through the original too: %v", i, m.name, p.Query.Command(), err)
				}
			}
		}
		t.Logf("%s: %s", m.name, found)
		c, err := Diff(set(text), holed, false)
		if err != nil || len(c.Unknown) > 0 || len(c.Differences) == 0 {
			t.Errorf("mutation %d, %s: diff: %+v, %v", i, m.name, c, err)
		}
	}
}
