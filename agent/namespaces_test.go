//go:build linux

package agent

import (
	"strings"
	"testing"

	"github.com/weir-proxy/weir/identity"
)

const redToShop = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: red}}
    ports: [{port: 8080}]
`

// A NetworkPolicy chooses a namespace by its name, which nobody configured as a label.
func TestNamespaceByName(t *testing.T) {
	r := newRig(t)
	server, red, blue := namespace(t), namespace(t), namespace(t)
	join(t, server, red, "10.98.0.1", "10.98.0.2", 1)
	join(t, server, blue, "10.98.0.1", "10.98.0.3", 2)
	r.setPolicies(redToShop)
	in := func(ns, label string) identity.Labels {
		ls, err := identity.Workload(ns, label)
		if err != nil {
			t.Fatal(err)
		}
		return ls
	}
	r.setWorkloads(
		Workload{Name: "shop/server", Labels: in("shop", "app=server"), Netns: server},
		Workload{Name: "red/client", Labels: in("red", "app=client"), Netns: red},
		Workload{Name: "blue/client", Labels: in("blue", "app=client"), Netns: blue},
	)
	r.serve(server, r.cg, ":8080")
	if got := r.get(red, r.cg, "GET", "http://10.98.0.1:8080/"); !strings.HasPrefix(got, "200 GET / from 10.98.0.2:") {
		t.Errorf("from namespace red: %s", got)
	}
	if got := r.get(blue, r.cg, "GET", "http://10.98.0.1:8080/"); got != "connection refused" {
		t.Errorf("from namespace blue: %s", got)
	}
}
