package cnp

import (
	"strings"
	"testing"

	"github.com/weir-proxy/weir/l7rules"
)

// Nothing that no proxy enforces yet gets past who asks.
func TestUnenforced(t *testing.T) {
	const ports = "ports: [{port: \"80\", protocol: TCP}]"
	for rule, want := range map[string]string{
		"egress: [{}]": "",
		"egress: [{toPorts: [{" + ports + ", rules: {http: [{}]}}]}]":                    "",
		"egress: [{toFQDNs: [{matchName: a.test}]}]":                                     "f.yaml:6:12: default/p: toFQDNs is not enforced yet",
		"egress: [{toPorts: [{" + ports + ", rules: {dns: [{matchPattern: \"*\"}]}}]}]":  "f.yaml:6:23: default/p: dns rules are not enforced yet",
		"egress: [{toPorts: [{" + ports + ", serverNames: [a.test]}]}]":                  "serverNames are not enforced yet",
		"ingress: [{toPorts: [{" + ports + ", rules: {kafka: [{}]}}]}]":                  "kafka rules are not enforced yet",
		"ingress: [{toPorts: [{" + ports + ", rules: {grpc: [{}]}}]}]":                   "grpc rules are not enforced yet",
		"ingressDeny: [{toPorts: [{" + ports + ", rules: {grpc: [{service: a.B}]}}]}]":   "grpc rules are not enforced yet",
		"ingress: [{}]\n  audit: true":                                                   "",
		"ingress: [{}]\n  audit: false":                                                  "",
		"ingressDeny: [{toPorts: [{" + ports + ", rules: {http: [{method: DELETE}]}}]}]": "",
	} {
		text := "apiVersion: weir-proxy.dev/v1alpha1\nkind: Policy\nmetadata: {name: p}\nspec:\n  endpointSelector: {}\n  " + rule + "\n"
		policies, _, err := Parse("f.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		err = l7rules.Unenforced(policies)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", rule, err, want)
		}
	}
}
