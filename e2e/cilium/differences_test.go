package cilium

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/cilium/pkg/option"
	"sigs.k8s.io/yaml"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

var (
	heading = regexp.MustCompile(`(?m)^### (.*)$`)
	example = regexp.MustCompile("(?s)```yaml\n(.*?)```\n+```text\n(.*?)```")
)

// Every difference is explained, and is there: its example shows it.
func TestDifferences(t *testing.T) {
	data, err := os.ReadFile("../../docs/cilium-differences.md")
	if err != nil {
		t.Fatal(err)
	}
	o, err := newOracle()
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for i, at := range heading.FindAllSubmatchIndex(data, -1) {
		end := len(data)
		if rest := heading.FindAllSubmatchIndex(data, -1)[i+1:]; len(rest) > 0 {
			end = rest[0][0]
		}
		sections[string(data[at[2]:at[3]])] = string(data[at[1]:end])
	}
	for _, d := range differences {
		t.Run(d.name, func(t *testing.T) {
			section, ok := sections[d.name]
			if !ok {
				t.Fatal("docs/cilium-differences.md does not explain it")
			}
			delete(sections, d.name)
			examples := example.FindAllStringSubmatch(section, -1)
			if len(examples) == 0 {
				t.Fatal("no example")
			}
			for _, e := range examples {
				o.checkExample(t, d.name, e[1], e[2])
			}
		})
	}
	for name := range sections {
		t.Errorf("%s is explained, and the test knows no such difference", name)
	}
}

func (o *oracle) checkExample(t *testing.T, name, policy, claims string) {
	t.Helper()
	var doc document
	if err := yaml.Unmarshal([]byte(policy), &doc); err != nil {
		t.Fatal(err)
	}
	if doc["kind"] == nil { // a spec alone
		doc = document{"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": document{"name": "p"}, "spec": doc}
	}
	lines := strings.Split(strings.TrimSpace(claims), "\n")
	if strings.HasPrefix(lines[0], "weir: ") {
		_, d := o.read(doc)
		if d == nil {
			t.Fatal("the engines agree on it")
		}
		if got := d.explanation(); got != name {
			t.Errorf("it is taken for %q:\n%v", got, d)
		}
		for i, err := range []error{d.ourError, d.theirError} {
			engine, want, _ := strings.Cut(lines[i], ": ")
			if engine != []string{"weir", "cilium"}[i] || (want == "reads it") != (err == nil) || err != nil && !strings.Contains("error: "+err.Error(), strings.TrimPrefix(want, "error: ")) {
				t.Errorf("%s, but: %v", lines[i], err)
			}
		}
		return
	}
	for _, line := range lines {
		o.checkClaim(t, name, doc, line)
	}
}

var claim = regexp.MustCompile(`^(ingress|egress) of ([^ ]+) (?:from|to) ([^ ]+) (tcp|sctp)/([0-9]+)(?: GET ([^ :]+)((?: [^ =]+=[^ :]*)*)| DNS ([^ :]+))?( in Kubernetes)?: weir (.*), cilium (.*)$`)

// checkClaim looks at one line about a connection.
func (o *oracle) checkClaim(t *testing.T, name string, doc document, line string) {
	t.Helper()
	m := claim.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("cannot read %q", line)
	}
	c := &connection{direction: flow.Egress, proto: map[string]uint8{"tcp": l7rules.ProtoTCP, "sctp": l7rules.ProtoSCTP}[m[4]]}
	if m[1] == "ingress" {
		c.direction = flow.Ingress
	}
	byName := func(name string) *endpoint {
		i := slices.IndexFunc(endpoints, func(ep *endpoint) bool { return ep.name == name })
		if i < 0 {
			return nil
		}
		return endpoints[i]
	}
	if c.subject = byName(m[2]); c.subject == nil {
		t.Fatalf("no endpoint %s", m[2])
	}
	if c.peer.endpoint = byName(m[3]); c.peer.endpoint == nil {
		c.peer.entity = identity.Host
		if m[3] != "host" {
			c.peer = peer{addr: netip.MustParseAddr(m[3])}
		}
	}
	port, err := strconv.ParseUint(m[5], 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	c.port = uint16(port)
	if m[8] != "" {
		c.requests = []flow.Request{&l7rules.DNSQuery{Name: m[8], QType: 1}}
	}
	if m[6] != "" {
		r := &l7rules.HTTPRequest{Proto: "HTTP/1.1", Method: []byte("GET"), Path: []byte(m[6])}
		for _, h := range strings.Fields(m[7]) {
			name, value, _ := strings.Cut(h, "=")
			r.Header = append(r.Header, l7rules.HeaderField{Name: []byte(name), Value: []byte(value)})
		}
		c.requests = []flow.Request{r}
	}
	if m[9] != "" {
		option.Config.AllowLocalhost = option.AllowLocalhostAlways
		defer func() { option.Config.AllowLocalhost = option.AllowLocalhostPolicy }()
	}
	w, _, err := o.newWorld([]document{doc})
	if err != nil || len(w.docs) != 1 {
		t.Fatalf("not both engines read it: %v", err)
	}
	_, d := w.judge(c)
	if d == nil {
		t.Fatalf("%s: the engines agree", line)
	}
	if got := d.explanation(); got != name {
		t.Errorf("it is taken for %q", got)
	}
	if ours, theirs := d.ours, d.theirs; fmt.Sprint(brief(ours), brief(theirs)) != fmt.Sprint(m[10], m[11]) {
		t.Errorf("%s: it is %s and %s", line, brief(ours), brief(theirs))
	}
}

// brief is FORWARDED or DROPPED, of the request if there is one.
func brief(v verdict) string {
	if !v.allowed || len(v.requests) > 0 && !v.requests[0] {
		return "DROPPED"
	}
	return "FORWARDED"
}
