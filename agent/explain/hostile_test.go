//go:build !race

package explain

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weir-proxy/weir/l7rules/cnp"
)

// TestScaleHostile: what would take for ever is UNKNOWN, or not warned of, in time.
func TestScaleHostile(t *testing.T) {
	var text strings.Builder
	for i := range 60 {
		fmt.Fprintf(&text, `---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p%[1]d}
spec:
  endpointSelector: {matchLabels: {k%[1]d: v}}
  ingress:
  - fromEndpoints: [{matchExpressions: [{key: k%[1]d, operator: NotIn, values: [a, b]}, {key: l%[1]d, operator: Exists}]}]
    toPorts:
    - ports: [{port: "80", protocol: TCP}]
      rules: {http: [{path: "/.*%[1]dx.{30}"}, {path: "/.*%[1]dy.{30}"}, {path: "/.*%[1]dz.{30}"}]}
`, i)
	}
	policies, _, err := cnp.Parse("p.yaml", []byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	const bar = 60 * time.Second
	begin := time.Now()
	Review(policies, nil)
	t.Logf("review: %v", time.Since(begin))
	set := NewSet(policies, nil)
	_, err = set.Prove([]string{"from k1=v to k2=v http GET /x"}, nil)
	if !IsUnknown(err) || !strings.Contains(err.Error(), "kinds of endpoints") {
		t.Errorf("a selector for each power of two: %v", err)
	}
	few := NewSet(policies[:2], nil)
	proofs, err := few.Prove([]string{"from l1=v,k1=c to k1=v http GET /x"}, nil)
	if err != nil || proofs[0].Unknown == "" || !strings.Contains(proofs[0].Unknown, "p.yaml:") {
		t.Errorf("%+v, %v", proofs, err)
	}
	if c, err := Diff(few, NewSet(policies[1:3], nil), false); err != nil || len(c.Unknown) == 0 {
		t.Errorf("%+v, %v", c, err)
	}
	if took := time.Since(begin); took > bar {
		t.Errorf("it took %v", took)
	}
	t.Logf("all: %v", time.Since(begin))
}
