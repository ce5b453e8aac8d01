package cilium

import (
	"testing"

	"sigs.k8s.io/yaml"
)

// The engines read the same documents, wrong ones included.
func TestDocuments(t *testing.T) {
	o, err := newOracle()
	if err != nil {
		t.Fatal(err)
	}
	n := &tally{outcomes: map[string]int{}}
	seen := map[string]bool{}
	for number := range uint64(*documents) {
		g := newGenerator(*seed, number)
		doc := g.document("p")
		for range 1 + g.IntN(3)/2 {
			doc = g.mutate(doc)
		}
		a, d := o.read(doc)
		switch {
		case d == nil && a != nil:
			n.add("read by both")
		case d == nil:
			n.add("refused by both")
		case d.explanation() != "":
			n.add("difference " + d.explanation())
		default:
			s := o.shrink(d)
			if key := gist(s.ourError) + gist(s.theirError); !seen[key] {
				seen[key] = true
				t.Errorf("seed %d, document %d: a difference that docs/cilium-differences.md does not name:\n%v", *seed, number, s)
			}
		}
		if len(seen) >= maxFailures {
			break
		}
	}
	for _, k := range sortedKeys(n.outcomes) {
		t.Logf("%8d %s", n.outcomes[k], k)
	}
}

// everyField has every field once that both engines know.
const everyField = `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p, namespace: default}
spec:
  description: all of it
  enableDefaultDeny: {ingress: true, egress: false}
  endpointSelector: {matchLabels: {app: a}, matchExpressions: [{key: app, operator: In, values: [a]}]}
  ingress:
  - fromEndpoints: [{matchLabels: {app: a}, matchExpressions: [{key: app, operator: NotIn, values: [a]}]}]
    toPorts:
    - ports: [{port: "80", endPort: 90, protocol: TCP}]
      rules: {http: [{method: GET, path: /a, host: a.test, headers: ["X-A: 1"], headerMatches: [{name: X-A, value: "1", mismatch: LOG}]}]}
  - fromEntities: [world]
  - fromCIDR: [10.0.0.0/8]
  - fromCIDRSet: [{cidr: 203.0.113.0/24, except: [203.0.113.8/29]}]
    toPorts:
    - ports: [{port: "9092", protocol: TCP}]
      rules: {kafka: [{apiKey: fetch, apiVersion: "1", clientID: a, topic: a}, {role: produce}]}
  ingressDeny: [{fromEntities: [host]}]
  egress:
  - toFQDNs: [{matchName: a.test}, {matchPattern: "*.a.test"}]
    toPorts:
    - ports: [{port: "443", protocol: TCP}]
      serverNames: [a.test]
  - toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules: {dns: [{matchName: a.test}, {matchPattern: "*.a.test"}]}
  egressDeny: [{toCIDR: [192.0.2.0/24]}]
`

// Each field, with each odd value.
func TestFields(t *testing.T) {
	o, err := newOracle()
	if err != nil {
		t.Fatal(err)
	}
	var base document
	if err := yaml.Unmarshal([]byte(everyField), &base); err != nil {
		t.Fatal(err)
	}
	if a, d := o.read(base); a == nil {
		t.Fatalf("not read by both:\n%v", d)
	}
	n := &tally{outcomes: map[string]int{}}
	for i, p := range places(base) {
		for _, odd := range oddValues[p.key] {
			doc := clone(base).(document)
			places(doc)[i].set(clone(odd))
			switch _, d := o.read(doc); {
			case d == nil:
				n.add("the same")
			case d.explanation() != "":
				n.add("difference " + d.explanation())
			default:
				t.Errorf("a difference that docs/cilium-differences.md does not name:\n%v", o.shrink(d))
			}
		}
	}
	for _, k := range sortedKeys(n.outcomes) {
		t.Logf("%8d %s", n.outcomes[k], k)
	}
}
