package explain

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weir-proxy/weir/l7rules/cnp"
)

// TestHostilePolicies: what would take for ever is UNKNOWN, or not warned of, in time.
func TestHostilePolicies(t *testing.T) {
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
	// A race detector takes ten times as long.
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

// FuzzBatch looks for a line that gets no answer, or more than one.
func FuzzBatch(f *testing.F) {
	for _, s := range []string{
		`{"from":"app=a","to":"app=b:80"}`, `{"from":"world","to":"app=b:80","http":"GET /x","host":"a","headers":["X: y"]}`,
		`{"from":"app=b","to":"a.test@192.0.2.1:443","sni":"a.test"}`, `{"from":"app=b","to":"[::1]:9092","kafka":"produce topic:a version:3"}`,
		`{"from":"app=b","to":"a.test,b.test@[::1]:53","dns":"x TXT","protocol":"udp"}`, `{"from":"app=b","to":"self:1","grpc":"a.B/C"}`, `{}`, `[]`, "",
	} {
		f.Add(s)
	}
	policies, _, err := cnp.Parse("p.yaml", []byte(`apiVersion: weir-proxy.dev/v1alpha1
kind: Policy
metadata: {name: p}
spec:
  endpointSelector: {matchLabels: {app: b}}
  ingress:
  - toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{path: "/a"}]}}]
  egress:
  - toPorts: [{ports: [{port: "9092", protocol: TCP}], rules: {kafka: [{role: produce, topic: a}]}}]
  - toFQDNs: [{matchName: a.test}]
    toPorts: [{ports: [{port: "443", protocol: TCP}], serverNames: [a.test]}]
  - toPorts: [{ports: [{port: "53"}], rules: {dns: [{matchName: x}]}}]
`))
	if err != nil {
		f.Fatal(err)
	}
	set := NewSet(policies, nil)
	f.Fuzz(func(t *testing.T, line string) {
		if strings.Contains(line, "\n") {
			return
		}
		var out bytes.Buffer
		sum, err := set.Batch(strings.NewReader(line), &out)
		if err != nil {
			t.Fatal(err)
		}
		want := 1
		if strings.TrimSpace(line) == "" {
			want = 0
		}
		if n := strings.Count(out.String(), "\n"); n != want || sum.Forwarded+sum.Dropped+sum.Wrong != want {
			t.Fatalf("%q: %q, %+v", line, out.String(), sum)
		}
	})
}
