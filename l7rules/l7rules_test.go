package l7rules

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
)

func all(t *testing.T) identity.Labels {
	t.Helper()
	ls, err := identity.Workload("", "app=s")
	if err != nil {
		t.Fatal(err)
	}
	return ls
}

func compile(t *testing.T, rules ...Rule) *EndpointPolicy {
	t.Helper()
	ep, err := Compile([]*Policy{{Namespace: "default", Name: "p", Rules: rules}}, all(t))
	if err != nil {
		t.Fatal(err)
	}
	return ep
}

func http80(rules ...HTTPRule) []PortRule {
	return []PortRule{{Ports: []PortRange{{ProtoTCP, 80, 80}}, Protocol: HTTP, HTTP: rules}}
}

// otherRequest is a request of a protocol that no rules are for.
type otherRequest struct{}

func (otherRequest) Type() string                 { return "other" }
func (otherRequest) AppendText(dst []byte) []byte { return dst }
func (otherRequest) AppendJSON(dst []byte) []byte { return dst }

// Whatever was not filled in denies.
func TestZeroValuesDeny(t *testing.T) {
	var zero EndpointPolicy
	host := Peer{ID: identity.Host}
	get := &HTTPRequest{Method: []byte("GET"), Path: []byte("/")}
	for _, dir := range []flow.Direction{flow.Egress, flow.Ingress, 7} {
		if e := zero.Lookup(dir, host, ProtoTCP, 80); e.Action != ActionDeny || !zero.Enforced(dir) || len(zero.Table(dir, host)) > 0 {
			t.Errorf("zero EndpointPolicy, direction %d: %+v", dir, e)
		}
	}
	if (Entry{}).Action != ActionDeny || (Decision{}).Allowed() {
		t.Error("a zero Entry or Decision allows")
	}
	for name, rs := range map[string]*Ruleset{"nil": nil, "zero": {}, "without rules": {protocol: HTTP}} {
		if d := rs.Decide(get); d.Allowed() || d.Reason == "" {
			t.Errorf("%s ruleset: %+v", name, d)
		}
	}
	for name, r := range map[string]Rule{"no peers": {AnyPort: true}, "no ports": {Peers: Peers{Any: true}}} {
		if e := compile(t, r).Lookup(flow.Egress, host, ProtoTCP, 80); e.Action != ActionDeny {
			t.Errorf("rule with %s: %+v", name, e)
		}
	}
	open, err := Compile(nil, all(t))
	if err != nil {
		t.Fatal(err)
	}
	if e := open.Lookup(flow.Egress, Peer{}, ProtoTCP, 80); e.Action != ActionDeny || e.Reason == "" {
		t.Errorf("a peer without identity where everything is open: %+v", e)
	}
	if len(open.Table(flow.Egress, Peer{})) > 0 {
		t.Error("a table for a peer without identity")
	}
	if open.Selected() || open.Enforced(flow.Egress) || open.HasRules(flow.Egress) {
		t.Error("selected by nothing, and enforced")
	}
	if !zero.HasRules(flow.Egress) {
		t.Error("the zero value has no rules, which is open")
	}
	// A deny that does not close its direction is a rule all the same.
	halfOpen, err := Compile([]*Policy{{Rules: []Rule{{Deny: true, Peers: Peers{Any: true}, AnyPort: true}}, Open: [2]bool{true, true}}}, all(t))
	if err != nil {
		t.Fatal(err)
	}
	if !halfOpen.HasRules(flow.Egress) || halfOpen.Enforced(flow.Egress) || halfOpen.HasRules(flow.Ingress) {
		t.Error("a deny that does not close is not seen")
	}
	if e := halfOpen.Lookup(flow.Egress, host, ProtoTCP, 80); e.Action != ActionDeny || e.Policy == "" {
		t.Errorf("a deny that does not close: %+v", e)
	}
}

func TestOtherProtocolsAreRefused(t *testing.T) {
	// Not even where everything of the peer is allowed.
	ep := compile(t, Rule{Peers: Peers{Any: true}, Ports: http80(HTTPRule{})}, Rule{Peers: Peers{Any: true}, AnyPort: true})
	e := ep.Lookup(flow.Egress, Peer{ID: identity.World}, ProtoTCP, 80)
	if e.Action != ActionRedirect || !e.Rules.AllowsAll() || e.Rules.Protocol() != HTTP {
		t.Fatalf("entry %+v", e)
	}
	var none *HTTPRequest
	for _, req := range []flow.Request{nil, none, otherRequest{}} {
		if d := e.Rules.Decide(req); d.Allowed() || d.Reason == "" {
			t.Errorf("%T: %+v", req, d)
		}
	}
	if d := e.Rules.Decide(&HTTPRequest{}); !d.Allowed() || d.Policy != "default/p[egress 0]" {
		t.Errorf("a request: %+v", d)
	}
}

// A prefix is for addresses outside, also if somebody gives an endpoint one.
func TestPrefixesAreNeverEndpoints(t *testing.T) {
	prefix := netip.MustParsePrefix("10.0.0.0/8")
	ep := compile(t, Rule{Peers: Peers{CIDRs: []CIDR{{Prefix: prefix}}}, AnyPort: true})
	for _, id := range []identity.ID{identity.Host, identity.FirstEndpoint, identity.RemoteNode, identity.Unknown} {
		if e := ep.Lookup(flow.Egress, Peer{ID: id, Prefix: prefix}, ProtoTCP, 80); e.Action != ActionDeny {
			t.Errorf("identity %v: %+v", id, e)
		}
	}
	for _, id := range []identity.ID{identity.World, identity.WorldIPv4, identity.FirstLocal + 5} {
		if e := ep.Lookup(flow.Egress, Peer{ID: id, Prefix: prefix}, ProtoTCP, 80); e.Action != ActionAllow {
			t.Errorf("identity %v: %+v", id, e)
		}
	}
	if e := ep.Lookup(flow.Egress, Peer{ID: identity.World}, ProtoTCP, 80); e.Action != ActionDeny {
		t.Errorf("an address of no prefix: %+v", e)
	}
}

// An address does not leave its family's entity because some policy names a prefix.
func TestPrefixesKeepTheirFamily(t *testing.T) {
	selector := func(id string) Peers {
		s, err := identity.NewSelector(identity.Requirement{Source: identity.SourceReserved, Key: id, Op: identity.Exists})
		if err != nil {
			t.Fatal(err)
		}
		return Peers{Endpoints: []identity.Selector{s}}
	}
	for _, c := range []struct {
		selects string
		prefix  string
		want    Action
	}{
		{"world-ipv4", "10.0.0.0/8", ActionAllow}, {"world-ipv4", "::/0", ActionDeny},
		{"world-ipv6", "fd00::/8", ActionAllow}, {"world-ipv6", "0.0.0.0/0", ActionDeny},
		{"world", "10.0.0.0/8", ActionAllow}, {"host", "127.0.0.0/8", ActionDeny},
	} {
		ep := compile(t, Rule{Peers: selector(c.selects), AnyPort: true})
		peer := Peer{ID: identity.FirstLocal + 5, Prefix: netip.MustParsePrefix(c.prefix)}
		if e := ep.Lookup(flow.Egress, peer, ProtoTCP, 80); e.Action != c.want {
			t.Errorf("reserved:%s and %s: %+v", c.selects, c.prefix, e)
		}
	}
}

func TestPeerOf(t *testing.T) {
	prefixes := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("::/0")}
	for addr, want := range map[string]string{
		"10.1.2.3": "10.1.0.0/16", "10.2.0.1": "10.0.0.0/8", "192.0.2.1": "invalid Prefix",
		"::ffff:10.1.2.3": "10.1.0.0/16", "2001:db8::1": "::/0", "fe80::1%eth0": "::/0",
	} {
		if got := PeerOf(netip.MustParseAddr(addr), prefixes).Prefix.String(); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

// What Cilium once got wrong, and what two protocols on one port would be: case 38.
func TestTwoProtocols(t *testing.T) {
	other := http80()
	other[0].Protocol = "kafka"
	other[0].Origin = Origin{"b.yaml", 7, 5}
	first := http80(HTTPRule{})
	first[0].Origin = Origin{"a.yaml", 9, 5}
	host := Peers{Entities: []Entity{EntityHost}}
	policies := []*Policy{
		{Namespace: "default", Name: "a", Rules: []Rule{{Peers: host, Ports: first}}},
		{Namespace: "default", Name: "b", Rules: []Rule{{Peers: host, Ports: other}}},
	}
	_, err := Compile(policies, all(t))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"default/a[egress 0]", "default/b[egress 0]", "a.yaml:9:5", "b.yaml:7:5", "http", "kafka", "tcp/80"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %s", err, want)
		}
	}
	// Two selectors that happen to match one peer: that peer is refused, others are not.
	policies[1].Rules[0].Peers = Peers{Entities: []Entity{EntityAll}}
	ep, err := Compile(policies, all(t))
	if err != nil {
		t.Fatal(err)
	}
	if e := ep.Lookup(flow.Egress, Peer{ID: identity.Host}, ProtoTCP, 80); e.Action != ActionDeny || !strings.Contains(e.Reason, "one application protocol") {
		t.Errorf("host: %+v", e)
	}
	if e := ep.Lookup(flow.Egress, Peer{ID: identity.World}, ProtoTCP, 80); e.Action != ActionRedirect {
		t.Errorf("world: %+v", e)
	}
}

// A denial's reason goes into a response header and onto a terminal.
func TestReasonsAreSafe(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	ep := compile(t, Rule{Peers: Peers{Any: true}, Ports: http80(
		HTTPRule{Method: testPattern("GET"), Path: testPattern("/é\n" + long[:300]), Host: testPattern("h\x1b"), Headers: []HeaderMatch{{"X", "\x00", true}}})})
	rs := ep.Lookup(flow.Egress, Peer{ID: identity.World}, ProtoTCP, 80).Rules
	for _, hostile := range []string{"\r\nSet-Cookie: x", "\x1b[2J", "\xff\xfe", "\"quoted\"", long, "\u202e", ""} {
		for _, r := range []*HTTPRequest{
			{Method: []byte(hostile), Path: []byte(hostile)},
			{Method: []byte("GET"), Path: []byte(hostile), Host: []byte(hostile)},
			{Method: []byte("GET"), Path: []byte("/é\n" + long[:300]), Host: []byte(hostile)},
		} {
			d := rs.Decide(r)
			if d.Allowed() || d.Reason == "" || len(d.Reason) > 1000 {
				t.Errorf("%.40q: %.300q", hostile, d)
			}
			if strings.ContainsFunc(d.Reason, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Errorf("%.40q: reason %q", hostile, d.Reason)
			}
		}
	}
}

func TestReasonNamesTheNearestRule(t *testing.T) {
	ep := compile(t,
		Rule{Index: 0, Peers: Peers{Any: true}, Ports: http80(HTTPRule{Method: testPattern("PUT"), Path: testPattern("/a")})},
		Rule{Index: 1, Peers: Peers{Any: true}, Ports: http80(HTTPRule{Method: testPattern("GET"), Path: testPattern("/a"), Host: testPattern("h"), Headers: []HeaderMatch{{"X", "1", true}, {"Y", "", false}}})},
	)
	rs := ep.Lookup(flow.Egress, Peer{ID: identity.World}, ProtoTCP, 80).Rules
	field := func(name, value string) HeaderField { return HeaderField{[]byte(name), []byte(value)} }
	for _, c := range []struct {
		method, path, host string
		header             []HeaderField
		want               string
	}{
		{"POST", "/b", "", nil, "no rule allows POST /b; nearest default/p[egress 0]: method PUT does not match"},
		{"PUT", "/b", "", nil, "no rule allows PUT /b; nearest default/p[egress 0]: path /a does not match"},
		{"GET", "/b", "", nil, "no rule allows GET /b; nearest default/p[egress 1]: path /a does not match"},
		{"GET", "/a", "", nil, "no rule allows GET /a; nearest default/p[egress 1]: host h does not match: the request names none"},
		{"GET", "/a", "g", nil, "no rule allows GET /a; nearest default/p[egress 1]: host h does not match g"},
		{"GET", "/a", "h", nil, "no rule allows GET /a; nearest default/p[egress 1]: header X is missing"},
		{"GET", "/a", "h", []HeaderField{field("X", "2")}, "no rule allows GET /a; nearest default/p[egress 1]: header X is not 1"},
		{"GET", "/a", "h", []HeaderField{field("X", "1"), field("x", "1")}, "no rule allows GET /a; nearest default/p[egress 1]: header X comes 2 times"},
		{"GET", "/a", "h", []HeaderField{field("X", "1")}, "no rule allows GET /a; nearest default/p[egress 1]: header Y is missing"},
	} {
		d := rs.Decide(&HTTPRequest{Method: []byte(c.method), Path: []byte(c.path), Host: []byte(c.host), Header: c.header})
		if d.Reason != c.want {
			t.Errorf("%s %s: %q, want %q", c.method, c.path, d.Reason, c.want)
		}
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	rules := []HTTPRule{
		{Method: testPattern("POST"), Path: testPattern("/x/.*")},
		{Path: testPattern("/y([/?].*)?"), Host: testPattern("h(:[0-9]+)?")},
		{Method: testPattern("GET|HEAD"), Path: testPattern("/public([/?].*)?"), Headers: []HeaderMatch{{"X-Token", "42", true}}},
	}
	ep := compile(t, Rule{Peers: Peers{Any: true}, Ports: http80(rules...)})
	peer := Peer{ID: identity.FirstEndpoint, Labels: all(t)}
	rs := ep.Lookup(flow.Egress, peer, ProtoTCP, 80).Rules
	r := &HTTPRequest{Method: []byte("GET"), Path: []byte("/public/index.html?q=1"), Host: []byte("h:80"),
		Header: []HeaderField{{[]byte("x-token"), []byte("42")}}}
	if d := rs.Decide(r); !d.Allowed() {
		t.Fatalf("refused: %+v", d)
	}
	if n := testing.AllocsPerRun(1000, func() { rs.Decide(r) }); n != 0 {
		t.Errorf("Decide: %v allocations", n)
	}
	if n := testing.AllocsPerRun(1000, func() { ep.Lookup(flow.Egress, peer, ProtoTCP, 80) }); n != 0 {
		t.Errorf("Lookup: %v allocations", n)
	}
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(1000, func() { buf = r.AppendJSON(r.AppendText(buf[:0])) }); n != 0 {
		t.Errorf("append: %v allocations", n)
	}
}

// The connections of many peers are looked up at once.
func TestConcurrentLookups(t *testing.T) {
	ep := compile(t, Rule{Peers: Peers{Entities: []Entity{EntityWorld}}, Ports: http80(HTTPRule{})})
	done := make(chan *Ruleset)
	for i := range 8 {
		go func() {
			var rs *Ruleset
			for j := range 1000 {
				rs = ep.Lookup(flow.Egress, Peer{ID: identity.FirstLocal + identity.ID(i*1000+j)}, ProtoTCP, 80).Rules
			}
			done <- rs
		}()
	}
	first := <-done
	for range 7 {
		if rs := <-done; rs != first || rs == nil {
			t.Error("one set of rules, two Rulesets")
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	p := &Policy{Namespace: "default", Name: "p", Rules: []Rule{{Peers: Peers{Any: true},
		Ports: http80(HTTPRule{Method: testPattern("GET"), Path: testPattern("/public([/?].*)?")})}}}
	ep, err := Compile([]*Policy{p}, identity.Labels{})
	if err != nil {
		b.Fatal(err)
	}
	rs := ep.Lookup(flow.Egress, Peer{ID: identity.World}, ProtoTCP, 80).Rules
	r := &HTTPRequest{Method: []byte("GET"), Path: []byte("/public/index.html?q=1"), Host: []byte("h:80")}
	b.ReportAllocs()
	for b.Loop() {
		if !rs.Decide(r).Allowed() {
			b.Fatal("refused")
		}
	}
}
