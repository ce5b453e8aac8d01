package cnp

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/l7rules"
)

// Case 79: one name in two files, or in two kinds of documents.
func TestSameNames(t *testing.T) {
	var all []*l7rules.Policy
	for file, docs := range []string{good, good, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: q}\nspec: {podSelector: {}}\n---\n" + strings.ReplaceAll(good, "name: p", "name: q")} {
		policies, warnings, err := Parse(fmt.Sprintf("%d.yaml", file), []byte(docs))
		if err != nil || len(warnings) > 0 {
			t.Fatal(err, warnings)
		}
		all = append(all, policies...)
	}
	var got []string
	for _, w := range SameNames(all) {
		got = append(got, w.String())
	}
	want := []string{
		"1.yaml:4:7: metadata.name: default/p is also in 0.yaml:4:7: both take effect",
		"2.yaml:9:7: metadata.name: default/q is also in 2.yaml:4:7: both take effect",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("warnings %q, want %q", got, want)
	}
}

func TestUntold(t *testing.T) {
	parse := func(egress string) []*l7rules.Policy {
		t.Helper()
		policies, _, err := Parse("f.yaml", []byte(strings.Replace(good, "egress: [{}]", "egress: ["+egress+"]", 1)))
		if err != nil {
			t.Fatal(err)
		}
		return policies
	}
	byName := parse("{toCIDR: [10.0.0.0/8]}, {toFQDNs: [{matchName: a.test}]}")
	questions := parse(`{toPorts: [{ports: [{port: "53"}], rules: {dns: [{matchPattern: "*"}]}}]}`)
	if got := fmt.Sprint(Untold(byName)); !strings.HasPrefix(got, "[f.yaml:4:63: toFQDNs: nobody tells the names") {
		t.Errorf("names without questions: %s", got)
	}
	for name, policies := range map[string][]*l7rules.Policy{"both": append(byName, questions...), "no names": questions, "nothing": nil} {
		if got := Untold(policies); len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Everything wrong in a file is said at once, in the order of the file.
func TestAllErrorsAtOnce(t *testing.T) {
	_, _, err := Parse("f.yaml", []byte(`apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: P}
spec:
  endpointSelector: {app: a}
  egress:
  - toPorts: [{ports: [{port: "53"}], rules: {dns: [{matchName: "a b"}], kafka: [{role: x}]}}]
  - toFQDNs: [{}]
    toEndpoints: []
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: np}
spec: {podSelector: {}, policyTypes: [x], ingress: [{from: [{podSelector: {app: a}}]}]}
---
kind: Policy
---
apiVersion: weir-proxy.dev/v1alpha1
kind: Policy
metadata: {name: own}
spec: {endpointSelector: {}, audit: maybe, ingress: [{toPorts: [{serverNames: ["*"]}]}]}
`))
	var es Errors
	if !errors.As(err, &es) {
		t.Fatal(err)
	}
	if !strings.Contains(err.Error(), "apiVersion: missing: write weir-proxy.dev/v1alpha1") {
		t.Errorf("a missing version: %v", err)
	}
	var at []string
	for _, e := range es {
		at = append(at, fmt.Sprintf("%d:%d %s", e.Origin.Line, e.Origin.Column, e.Path))
	}
	want := []string{
		"3:18 metadata.name",
		"5:22 spec.endpointSelector.app",
		"7:65 spec.egress[0].toPorts[0].rules.dns[0].matchName",
		"7:81 spec.egress[0].toPorts[0].rules.kafka",
		"8:14 spec.egress[1].toFQDNs",
		"8:15 spec.egress[1].toFQDNs[0]",
		"14:39 spec.policyTypes[0]",
		"14:76 spec.ingress[0].from[0].podSelector.app",
		"16:1 apiVersion",
		"21:37 spec.audit",
		"21:80 spec.ingress[0].toPorts[0].serverNames[0]",
	}
	if strings.Join(at, "\n") != strings.Join(want, "\n") {
		t.Errorf("errors at\n%s\nwant\n%s\n%v", strings.Join(at, "\n"), strings.Join(want, "\n"), err)
	}
}
