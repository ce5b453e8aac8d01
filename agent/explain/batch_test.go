package explain

import (
	"bytes"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/l7rules/cnp"
)

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
