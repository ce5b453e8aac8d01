package prove

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// generator makes policies and flows of few values, so that they meet.
type generator struct {
	*rand.Rand
	t *testing.T
}

func pick[T any](g generator, list ...T) T { return list[g.IntN(len(list))] }

func (g generator) pattern(list ...string) *match.Pattern {
	if g.IntN(3) == 0 {
		return nil
	}
	p, err := match.Compile(pick(g, list...))
	if err != nil {
		g.t.Fatal(err)
	}
	return p
}

func (g generator) selector(peer bool) identity.Selector {
	var reqs []identity.Requirement
	for range g.IntN(3) {
		r := identity.Requirement{Source: pick(g, "any", "any", "k8s", "container"), Key: pick(g, "app", "app", "tier"), Op: pick(g, identity.In, identity.In, identity.NotIn, identity.Exists, identity.DoesNotExist)}
		if r.Op == identity.In || r.Op == identity.NotIn {
			r.Values = []string{pick(g, "a", "b", "c")}
			if g.IntN(4) == 0 {
				r.Values = append(r.Values, "d")
			}
		}
		reqs = append(reqs, r)
	}
	switch g.IntN(4) {
	case 0:
		if peer {
			reqs = append(reqs, identity.Requirement{Source: "k8s", Key: identity.NamespaceKey, Op: identity.Exists})
		}
	case 1:
		reqs = append(reqs, identity.Requirement{Source: "any", Key: identity.NamespaceKey, Op: identity.In, Values: []string{"shop"}})
	default:
		reqs = append(reqs, identity.Requirement{Source: "k8s", Key: identity.NamespaceKey, Op: identity.In, Values: []string{"default"}})
	}
	s, err := identity.NewSelector(reqs...)
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

func (g generator) httpRule() l7rules.HTTPRule {
	h := l7rules.HTTPRule{
		Method: g.pattern("GET", "GET|POST", "P.*", ".*"),
		Path:   g.pattern("/a", "/a.*", "/(a|b)", "/public([/?].*)?", "/.*", ".*", "/[^/]*"),
	}
	if g.IntN(4) == 0 {
		h.Host = g.pattern(`a\.test`, `.*\.test`, ".*")
	}
	if g.IntN(4) == 0 {
		h.Headers = []l7rules.HeaderMatch{{Name: pick(g, "X-A", "x-a", "X-B"), Value: pick(g, "1", "2"), Exact: g.IntN(2) == 0}}
	}
	return h
}

func (g generator) name() match.Name {
	n, err := match.CompileNamePattern(pick(g, "a.test", "*.test", "**.test", "b*.test", "*", "x.a.test"))
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// otherRules are about requests in another protocol than HTTP, on a port of its own.
func (g generator) otherRules() l7rules.PortRule {
	names := []l7rules.NameRule{{Name: g.name()}}
	if g.IntN(2) == 0 {
		names = append(names, l7rules.NameRule{Name: g.name()})
	}
	port := func(proto uint8, n uint16) []l7rules.PortRange {
		return []l7rules.PortRange{{Proto: proto, First: n, Last: n}}
	}
	switch g.IntN(3) {
	case 0:
		return l7rules.PortRule{Protocol: l7rules.DNS, Ports: port(pick(g, l7rules.ProtoUDP, l7rules.ProtoTCP), 53), DNS: names}
	case 1:
		return l7rules.PortRule{Protocol: l7rules.TLS, Ports: port(l7rules.ProtoTCP, 443), TLS: names}
	}
	k := l7rules.KafkaRule{Role: pick(g, "", l7rules.KafkaProduce, l7rules.KafkaConsume), ClientID: pick(g, "", "", "me")}
	if k.Role == "" && g.IntN(2) == 0 {
		k.APIKeys = []int16{pick[int16](g, 0, 1, 19)}
	}
	if g.IntN(4) == 0 {
		k.APIVersion = new(int16)
	}
	switch g.IntN(3) {
	case 0:
		k.Topic = l7rules.KafkaName{Value: pick(g, "orders", "ord"), Prefix: g.IntN(2) == 0}
	case 1:
		k.Group = l7rules.KafkaName{Value: "g"}
	}
	return l7rules.PortRule{Protocol: l7rules.Kafka, Ports: port(l7rules.ProtoTCP, 9092), Kafka: []l7rules.KafkaRule{k}}
}

func (g generator) rule(index int) l7rules.Rule {
	r := l7rules.Rule{Direction: flow.Direction(g.IntN(2)), Deny: g.IntN(4) == 0, Index: index}
	switch g.IntN(7) {
	case 0:
		r.Peers.Any = true
	case 6:
		if r.Direction == flow.Egress {
			r.Peers.Names = []match.Name{g.name()}
		}
	case 1:
		r.Peers.Entities = []l7rules.Entity{pick(g, l7rules.EntityAll, l7rules.EntityWorld, l7rules.EntityHost, l7rules.EntityCluster, l7rules.EntityWorldIPv6)}
	case 2:
		prefixes := []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/0", "fd00::/8", "fd00::1/128", "127.0.0.0/8"}
		c := l7rules.CIDR{Prefix: netip.MustParsePrefix(pick(g, prefixes...))}
		for _, e := range prefixes {
			if p := netip.MustParsePrefix(e); g.IntN(3) == 0 && c.Prefix.Contains(p.Addr()) && p.Bits() > c.Prefix.Bits() {
				c.Except = append(c.Except, p)
			}
		}
		r.Peers.CIDRs = append(r.Peers.CIDRs, c)
	default:
		for range 1 + g.IntN(2) {
			r.Peers.Endpoints = append(r.Peers.Endpoints, g.selector(true))
		}
	}
	if g.IntN(5) == 0 {
		r.AnyPort = true
		return r
	}
	if g.IntN(3) == 0 {
		r.Ports = append(r.Ports, g.otherRules())
		return r
	}
	for range 1 + g.IntN(2) {
		var pr l7rules.PortRule
		for range 1 + g.IntN(2) {
			p := l7rules.PortRange{Proto: l7rules.ProtoTCP, First: pick[uint16](g, 1, 79, 80, 81, 65535)}
			p.Last = p.First
			if g.IntN(3) == 0 {
				p.Last = max(p.First, pick[uint16](g, 80, 90, 65535))
			}
			if g.IntN(6) == 0 {
				p.Proto = pick(g, l7rules.ProtoUDP, l7rules.ProtoSCTP)
			}
			pr.Ports = append(pr.Ports, p)
		}
		if g.IntN(2) == 0 && !slices.ContainsFunc(pr.Ports, func(p l7rules.PortRange) bool { return p.Proto != l7rules.ProtoTCP }) {
			pr.Protocol = l7rules.HTTP
			for range 1 + g.IntN(3) {
				pr.HTTP = append(pr.HTTP, g.httpRule())
			}
		}
		r.Ports = append(r.Ports, pr)
	}
	return r
}

func (g generator) policies(n int) []*l7rules.Policy {
	var list []*l7rules.Policy
	for i := range n {
		p := &l7rules.Policy{Namespace: "default", Name: fmt.Sprint("p", i), Subject: g.selector(false)}
		for j := range 1 + g.IntN(3) {
			p.Rules = append(p.Rules, g.rule(j))
		}
		if g.IntN(4) == 0 {
			p.Open[g.IntN(2)] = true
		}
		list = append(list, p)
	}
	return list
}

// changed is the same policies but for a rule.
func (g generator) changed(old []*l7rules.Policy) []*l7rules.Policy {
	list := slices.Clone(old)
	i := g.IntN(len(list))
	p := *list[i]
	p.Rules = slices.Clone(p.Rules)
	switch g.IntN(3) {
	case 0:
		p.Rules = append(p.Rules, g.rule(len(p.Rules)))
	case 1:
		p.Rules[g.IntN(len(p.Rules))] = g.rule(0)
	default:
		p.Subject = g.selector(false)
	}
	list[i] = &p
	return list
}

func (g generator) end() End {
	switch g.IntN(8) {
	case 0:
		return End{ID: identity.Host}
	case 1, 2:
		a := netip.MustParseAddr(pick(g, "10.1.2.3", "10.1.2.4", "10.2.0.1", "192.0.2.9", "fd00::1", "fd00::2", "2001:db8::9"))
		if a.Is4() {
			return End{ID: identity.WorldIPv4, Addr: a}
		}
		return End{ID: identity.WorldIPv6, Addr: a}
	}
	labels := []identity.Label{{Source: "k8s", Key: identity.NamespaceKey, Value: pick(g, "default", "default", "shop", "third")}}
	for _, key := range []string{"app", "tier", "unrelated"} {
		if g.IntN(3) > 0 {
			labels = append(labels, identity.Label{Source: pick(g, "k8s", "k8s", "container", "foreign"), Key: key, Value: pick(g, "a", "b", "c", "d", "e")})
		}
	}
	ls, err := identity.NewLabels(labels...)
	if err != nil {
		g.t.Fatal(err)
	}
	return End{ID: identity.FirstEndpoint, Labels: ls}
}

func (g generator) anyName() string {
	return pick(g, "a.test", "b.test", "x.a.test", "y.x.a.test", "test", "bb.test", "other")
}

func (g generator) flow() Flow {
	f := Flow{From: g.end(), To: g.end(), Proto: l7rules.ProtoTCP, Port: pick[uint16](g, 1, 2, 79, 80, 81, 90, 91, 65535)}
	if f.To.Addr.IsValid() && g.IntN(2) == 0 {
		for range 1 + g.IntN(2) {
			f.To.Names = append(f.To.Names, g.anyName())
		}
	}
	switch g.IntN(8) {
	case 0:
		f.Proto, f.Port = pick(g, l7rules.ProtoTCP, l7rules.ProtoUDP), 53
		f.Request = &l7rules.DNSQuery{Name: pick(g, g.anyName(), ".", `a\000.test`), QType: 1}
		return f
	case 1:
		f.Port, f.Request = 443, &l7rules.ClientHello{ServerName: pick(g, "", g.anyName())}
		return f
	case 2:
		f.Port = 9092
		f.Request = &l7rules.KafkaRequest{APIKey: pick[int16](g, 0, 1, 3, 18, 19, 11, 500), APIVersion: pick[int16](g, 0, 1), ClientID: pick(g, "", "me", "you"),
			Resource: l7rules.KafkaResource(g.IntN(5)), Name: pick(g, "orders", "ord", "orders2", "g", "h")}
		return f
	}
	if g.IntN(8) == 0 {
		f.Proto = pick(g, l7rules.ProtoUDP, l7rules.ProtoSCTP)
		return f
	}
	r := &l7rules.HTTPRequest{
		Method: []byte(pick(g, "GET", "POST", "PUT", "DELETE", "OPTIONS")),
		Path:   []byte(pick(g, "/", "/a", "/a/b", "/b", "/public", "/public?x", "/x/y")),
		Host:   []byte(pick(g, "", "a.test", "b.test", "other")),
	}
	if string(r.Method) == "OPTIONS" && g.IntN(2) == 0 {
		r.Path = []byte("*")
	}
	for _, n := range []string{"X-a", "X-B"} {
		for range g.IntN(3) {
			r.Header = append(r.Header, l7rules.HeaderField{Name: []byte(n), Value: []byte(pick(g, "1", "2", "3"))})
		}
	}
	f.Request = r
	return f
}

// passes is what the product says to a flow, without any of this package.
func passes(t *testing.T, policies []*l7rules.Policy, f *Flow) bool {
	t.Helper()
	for _, s := range []struct {
		dir           flow.Direction
		subject, peer *End
	}{{flow.Egress, &f.From, &f.To}, {flow.Ingress, &f.To, &f.From}} {
		if !s.subject.ID.IsEndpoint() {
			continue
		}
		ep, err := l7rules.Compile(policies, s.subject.Labels)
		if err != nil {
			t.Fatal(err)
		}
		peer := l7rules.Peer{ID: s.peer.ID, Labels: s.peer.Labels}
		if s.peer.Addr.IsValid() {
			peer = l7rules.PeerOf(s.peer.Addr, ep.Prefixes(s.dir))
			peer.Names = s.peer.Names
		}
		switch e := ep.Lookup(s.dir, peer, f.Proto, f.Port); {
		case e.Action == l7rules.ActionDeny, e.Action == l7rules.ActionRedirect && f.Raw:
			return false
		case e.Action == l7rules.ActionRedirect && f.Request != nil && !e.Rules.Decide(f.Request).Allowed():
			return false
		}
	}
	return true
}

// kindOf finds the end of a space that stands for one.
func (s *space) kindOf(t *testing.T, d *differences, e *End) int {
	t.Helper()
	for i := range s.ends {
		k := &s.ends[i]
		switch {
		case e.ID.IsEndpoint() && k.ID.IsEndpoint() && signature(d.selectors, e.Labels).key() == signature(d.selectors, k.Labels).key():
			return i
		case e.ID == identity.Host && k.ID == e.ID:
			return i
		case e.Addr.IsValid() && k.Addr.IsValid() && e.Addr.Is4() == k.Addr.Is4() && !slices.ContainsFunc(d.cidrs, func(c l7rules.CIDR) bool {
			return inCIDR(c, e.Addr) != inCIDR(c, k.Addr)
		}) && !slices.ContainsFunc(d.names, func(n l7rules.NameRule) bool {
			return slices.ContainsFunc(e.Names, n.Name.Match) != slices.ContainsFunc(k.Names, n.Name.Match)
		}):
			return i
		}
	}
	t.Fatalf("no kind for %s", e)
	return 0
}

func inCIDR(c l7rules.CIDR, a netip.Addr) bool {
	return c.Prefix.Contains(a) && !slices.ContainsFunc(c.Except, func(e netip.Prefix) bool { return e.Contains(a) })
}

// TestDiffIsExact compares random policies. Each witness differs as it is said to; and
// where a random flow differs, a change is listed for its kinds of ends, on its port.
func TestDiffIsExact(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(11, 12)), t}
	found := map[bool]int{}
	for range 40 / slow {
		older := g.policies(1 + g.IntN(4))
		newer := g.changed(older)
		result, err := Diff(older, newer, Known{}, true)
		if err != nil && strings.Contains(err.Error(), "one application protocol") {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if len(result.Unknown) > 0 {
			t.Fatal(result.Unknown[0])
		}
		for i := range result.Changes {
			c := &result.Changes[i]
			for _, proto := range c.Protos {
				f := c.Flow
				f.Proto = proto
				if f.Port < c.First || f.Port > c.Last {
					f.Port = c.First
				}
				if before, after := passes(t, older, &f), passes(t, newer, &f); before == c.Widened || after != c.Widened {
					t.Fatalf("%+v: before %v, after %v", c, before, after)
				}
			}
		}
		d := &differences{seen: map[string]bool{}}
		s, err := newSpace(d, Known{}, older, newer)
		if err != nil {
			t.Fatal(err)
		}
		for range 300 {
			f := g.flow()
			if !f.From.ID.IsEndpoint() && !f.To.ID.IsEndpoint() || len(f.To.Names) > 1 && !d.combine {
				continue // of two names each is a kind by itself where none is denied
			}
			before, after := passes(t, older, &f), passes(t, newer, &f)
			if before == after {
				continue
			}
			found[after]++
			from, to := s.ends[s.kindOf(t, d, &f.From)], s.ends[s.kindOf(t, d, &f.To)]
			if !slices.ContainsFunc(result.Changes, func(c Change) bool {
				return c.Widened == after && c.Flow.From.String() == from.String() && c.Flow.To.String() == to.String() &&
					slices.Contains(c.Protos, f.Proto) && c.First <= f.Port && f.Port <= c.Last
			}) {
				t.Fatalf("%s -> %s %d/%d %v: before %v, after %v, but no change is listed for %s -> %s", &f.From, &f.To, f.Proto, f.Port, f.Request, before, after, &from, &to)
			}
		}
		same, err := Diff(newer, slices.Clone(newer), Known{}, false)
		if err != nil || len(same.Changes) > 0 {
			t.Fatalf("a set differs from itself: %+v, %v", same, err)
		}
	}
	if found[true] < 40/slow || found[false] < 40/slow {
		t.Errorf("too few flows differ: %v", found)
	}
}

func (g generator) claim() *Claim {
	who := func() string {
		return pick(g, "app=a", "app!=a", "app=b,io.kubernetes.pod.namespace", "!tier", "k8s:tier=c,io.kubernetes.pod.namespace=shop", "host", "world", "cluster", "all",
			"10.0.0.0/9", "fd00::1", "any", "container:app=a")
	}
	whoTo := func() string { return pick(g, who(), who(), "a.test", "*.test") }
	text := ""
	for _, word := range pick(g, []string{"from", "to"}, []string{"to", "from"}, []string{"from"}, []string{"to"}) {
		if word == "to" {
			text += "to " + whoTo() + " "
		} else {
			text += "from " + who() + " "
		}
	}
	switch g.IntN(5) {
	case 2:
		text += pick(g, "dns a.test", "dns *.test udp/53", "sni *", "sni b.test", "kafka produce orders", "kafka * topic:ord*", "kafka fetch", "kafka * cluster", "grpc shop.Orders/Get")
	case 0:
		text += pick(g, "tcp", "udp", "tcp/80", "tcp/70-85", "udp/1-100")
	case 1:
		text += pick(g, "", "tcp/80 ") + "http " + pick(g, "GET", "DELETE", "P.*", ".*") + " " + pick(g, "/a.*", "/.*", "/public", ".*") + pick(g, "", ` host .*\.test`, ` header "X-A: 1"`, " header x-b")
	}
	c, err := ParseClaim(text, g.IntN(2) == 0, Known{})
	if err != nil {
		g.t.Fatalf("%s: %v", text, err)
	}
	return c
}

// contradicts reports whether a flow that passes contradicts a claim.
func (c *Claim) contradicts(f *Flow) bool {
	in := func(w *Who, e *End) bool {
		switch {
		case w.selector != nil:
			return e.ID.IsEndpoint() && w.selector.Matches(e.Labels)
		case w.name != nil:
			return slices.ContainsFunc(e.Names, w.name.Match)
		case w.prefix.IsValid():
			return e.Addr.IsValid() && w.prefix.Contains(e.Addr)
		case w.entity == l7rules.EntityHost:
			return e.ID == identity.Host
		case w.entity == l7rules.EntityWorld:
			return e.Addr.IsValid()
		case w.entity == l7rules.EntityCluster:
			return !e.Addr.IsValid()
		}
		return true
	}
	within := in(&c.From, &f.From) && in(&c.To, &f.To) && (c.Proto == 0 || c.Proto == f.Proto) && c.First <= f.Port && f.Port <= c.Last
	if c.Requests != nil && f.Request == nil {
		within = false
	} else if c.Requests != nil {
		switch r := f.Request.(type) {
		case *l7rules.HTTPRequest:
			within = within && c.Requests.rules.protocol == l7rules.HTTP && refHTTP(c.Requests.rules.http, r, c.Only)
		case *l7rules.KafkaRequest:
			within = within && c.Requests.kafka != nil && c.Requests.kafka.covers(r)
		case *l7rules.DNSQuery:
			within = within && c.Requests.rules.protocol == l7rules.DNS && c.Requests.rules.names[0].Name.Match(r.Name)
		case *l7rules.ClientHello:
			within = within && c.Requests.rules.protocol == l7rules.TLS && c.Requests.rules.names[0].Name.Match(r.ServerName)
		}
	}
	switch {
	case !c.Only:
		return within
	case c.ToFirst:
		return in(&c.To, &f.To) && !within
	}
	return in(&c.From, &f.From) && !within
}

func refHTTP(rules []*l7rules.HTTPRule, r *l7rules.HTTPRequest, only bool) bool {
	if len(rules) == 0 {
		return false
	}
	for _, m := range []struct {
		p *match.Pattern
		v []byte
	}{{rules[0].Method, r.Method}, {rules[0].Path, r.Path}, {rules[0].Host, r.Host}} {
		if m.p != nil && !m.p.Match(m.v) {
			return false
		}
	}
	for _, h := range rules[0].Headers {
		var values []string
		for _, f := range r.Header {
			if strings.EqualFold(string(f.Name), h.Name) {
				values = append(values, string(f.Value))
			}
		}
		if len(values) == 0 || h.Exact && !slices.Contains(values, h.Value) || h.Exact && only && len(values) > 1 {
			return false
		}
	}
	return true
}

// TestProveIsExact makes random claims of random policies. What is found contradicts the
// claim; what is proved no random flow contradicts.
func TestProveIsExact(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(13, 14)), t}
	results := map[bool]int{}
	for range 150 / slow {
		policies := g.policies(1 + g.IntN(5))
		c := g.claim()
		proofs, err := Prove(policies, []*Claim{c}, Known{})
		if err != nil {
			if strings.Contains(err.Error(), "about nobody that policies judge") || strings.Contains(err.Error(), "one application protocol") {
				continue
			}
			t.Fatal(err)
		}
		p := proofs[0]
		if p.Unknown != nil {
			t.Fatal(p.Unknown)
		}
		results[p.Flow == nil]++
		if f := p.Flow; f != nil {
			if !passes(t, policies, f) || !c.contradicts(f) {
				t.Fatalf("%q, only %v: %s -> %s %d/%d %v: passes %v, contradicts %v", c.Text, c.Only, &f.From, &f.To, f.Proto, f.Port, f.Request, passes(t, policies, f), c.contradicts(f))
			}
			continue
		}
		for range 800 {
			f := g.flow()
			if (f.From.ID.IsEndpoint() || f.To.ID.IsEndpoint()) && c.contradicts(&f) && passes(t, policies, &f) {
				t.Fatalf("%q, only %v is proved, but %s -> %s %d/%d %v gets through", c.Text, c.Only, &f.From, &f.To, f.Proto, f.Port, f.Request)
			}
		}
	}
	if results[true] < 10/slow || results[false] < 30/slow {
		t.Errorf("too few of one kind: %v", results)
	}
}
