//go:build !race

// What the race detector costs would hide what is measured here: make test runs these
// without it.

package explain

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/cnp"
)

// services writes policies for n services in some namespaces: each is called by two others
// with certain requests, asks a database, and reaches some addresses outside. edit changes
// the text of the i-th.
func services(t testing.TB, n int, edit func(i int, text string) string) *Set {
	t.Helper()
	var policies []*l7rules.Policy
	for i := range n {
		text := fmt.Sprintf(`apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: s%[1]d, namespace: n%[2]d}
spec:
  endpointSelector: {matchLabels: {app: s%[1]d}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: s%[3]d, "k8s:io.kubernetes.pod.namespace": n%[4]d}}, {matchLabels: {app: s%[5]d, "k8s:io.kubernetes.pod.namespace": n%[6]d}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules:
        http:
        - {method: "GET|HEAD", path: "/v1/s%[1]d([/?].*)?"}
        - {method: POST, path: "/v1/s%[1]d/[0-9]+", headers: ["X-Token: s%[1]d"]}
  - fromEndpoints: [{matchLabels: {role: monitor}}]
    toPorts:
    - ports: [{port: "9090", endPort: 9099, protocol: TCP}]
  egress:
  - toEndpoints: [{matchExpressions: [{key: tier, operator: In, values: [db, cache]}]}]
    toPorts: [{ports: [{port: "5432", protocol: TCP}, {port: "6379", protocol: TCP}]}]
  - toEndpoints: [{matchLabels: {"k8s:io.kubernetes.pod.namespace": n%[2]d}}, {matchLabels: {"k8s:io.kubernetes.pod.namespace": n%[4]d}}]
  - toCIDRSet: [{cidr: 10.%[1]d.0.0/16, except: [10.%[1]d.7.0/24]}]
    toPorts: [{ports: [{port: "443", protocol: TCP}]}]
  egressDeny:
  - toPorts: [{ports: [{port: "25", protocol: TCP}]}]
`, i, i%8, (i+1)%n, (i+1)%n%8, (i+7)%n, (i+7)%n%8)
		if edit != nil {
			text = edit(i, text)
		}
		list, _, err := cnp.Parse(fmt.Sprintf("s%d.yaml", i), []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		policies = append(policies, list...)
	}
	return NewSet(policies, nil)
}

// TestScaleDiff compares two sets of 200 policies in which a tenth differs.
func TestScaleDiff(t *testing.T) {
	older := services(t, 200, nil)
	newer := services(t, 200, func(i int, text string) string {
		switch i % 40 {
		case 0:
			return strings.Replace(text, "GET|HEAD", "GET|HEAD|PUT", 1)
		case 10:
			return strings.Replace(text, "endPort: 9099", "endPort: 9100", 1)
		case 20:
			return strings.Replace(text, "7.0/24", "7.0/25", 1)
		case 30:
			return strings.Replace(text, `port: "25"`, `port: "26"`, 1)
		}
		return text
	})
	begin := time.Now()
	c, err := Diff(older, newer, false)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	t.Logf("%d differences in %v", len(c.Differences), took)
	if len(c.Unknown) > 0 {
		t.Errorf("unknown: %q", c.Unknown)
	}
	if len(c.Differences) < 20 {
		t.Errorf("only %d differences", len(c.Differences))
	}
	// 5 seconds are the aim; a machine that does much else takes longer.
	if bar := 30 * time.Second; took > bar {
		t.Errorf("it took %v", took)
	}
	for i := range c.Differences {
		d := &c.Differences[i]
		before, err1 := older.Ask(d.Query)
		after, err2 := newer.Ask(d.Query)
		if err1 != nil || err2 != nil || before.through() == d.Widened || after.through() != d.Widened {
			t.Errorf("%s: %v, %v", d.Query.Command(), err1, err2)
		}
	}
}

// TestScaleReview looks for rules that change nothing among 200 policies.
func TestScaleReview(t *testing.T) {
	set := services(t, 200, func(i int, text string) string {
		if i == 17 {
			return text + "  - toPorts: [{ports: [{port: \"25\", protocol: TCP}]}]\n"
		}
		return text
	})
	begin := time.Now()
	warnings := Review(set.policies, nil)
	t.Logf("%d warnings in %v", len(warnings), time.Since(begin))
	found := 0
	for _, w := range warnings {
		if w.Origin.File == "s17.yaml" && strings.Contains(w.String(), "egressDeny[1]: shadowed: n1/s17[egressDeny 0]") {
			found++
		}
	}
	if found != 1 {
		t.Errorf("%q", warnings)
	}
}
