package l7rules

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// The reference evaluator says what policies mean in the fewest words: if any deny rule
// covers the flow it is dropped, else if any allow rule covers it, with its request rules if
// it has some, it is forwarded, else the default decides. It shares no code with what it
// checks but the model.

type testFlow struct {
	dir     flow.Direction
	subject identity.Labels
	peer    Peer
	addr    netip.Addr // of a peer outside
	proto   uint8
	port    uint16
	req     *HTTPRequest
}

func reference(policies []*Policy, f testFlow) (forwarded, proxied bool) {
	closed, denied, allowed := false, false, false
	for _, p := range policies {
		if !p.Subject.Matches(f.subject) {
			continue
		}
		for i := range p.Rules {
			r := &p.Rules[i]
			if r.Direction != f.dir {
				continue
			}
			closed = closed || !p.Open[f.dir]
			if !refPeer(r.Peers, f) {
				continue
			}
			covers := r.AnyPort
			for _, pr := range r.Ports {
				for _, ports := range pr.Ports {
					if ports.Proto != f.proto || f.port < ports.First || f.port > ports.Last {
						continue
					}
					if pr.Protocol == "" {
						covers = true
						continue
					}
					proxied = true
					covers = covers || slices.ContainsFunc(pr.HTTP, func(h HTTPRule) bool { return refHTTP(h, f.req) })
				}
			}
			denied = denied || covers && r.Deny
			allowed = allowed || covers && !r.Deny
		}
	}
	return !denied && (allowed || !closed), proxied
}

func refPeer(p Peers, f testFlow) bool {
	if p.Any {
		return true
	}
	outside := f.addr.IsValid()
	for _, e := range p.Entities {
		switch e {
		case EntityAll:
			return true
		case EntityWorld:
			if outside {
				return true
			}
		case EntityHost:
			if f.peer.ID == identity.Host {
				return true
			}
		case EntityCluster:
			if !outside {
				return true
			}
		}
	}
	for _, s := range p.Endpoints {
		if f.peer.ID.IsEndpoint() && s.Matches(f.peer.Labels) {
			return true
		}
	}
	for _, c := range p.CIDRs {
		if outside && c.Prefix.Contains(f.addr) && !slices.ContainsFunc(c.Except, func(e netip.Prefix) bool { return e.Contains(f.addr) }) {
			return true
		}
	}
	return false
}

func refHTTP(h HTTPRule, r *HTTPRequest) bool {
	for _, m := range []struct {
		p *match.Pattern
		v []byte
	}{{h.Method, r.Method}, {h.Path, r.Path}, {h.Host, r.Host}} {
		if m.p != nil && !refPattern(m.p.String()).Match(m.v) {
			return false
		}
	}
	for _, m := range h.Headers {
		var values []string
		for _, f := range r.Header {
			if strings.EqualFold(string(f.Name), m.Name) {
				values = append(values, string(f.Value))
			}
		}
		if len(values) == 0 || m.Exact && !slices.Equal(values, []string{m.Value}) {
			return false
		}
	}
	return true
}

// refPattern and testPattern keep what they compiled: it is most of the time otherwise.
var refPattern = kept(func(s string) *regexp.Regexp { return regexp.MustCompile(`\A(?:` + s + `)\z`) })

var testPattern = kept(func(s string) *match.Pattern {
	p, err := match.Compile(s)
	if err != nil {
		panic(err)
	}
	return p
})

func kept[T any](compile func(string) T) func(string) T {
	m := map[string]T{}
	return func(s string) T {
		v, ok := m[s]
		if !ok {
			v = compile(s)
			m[s] = v
		}
		return v
	}
}

// evaluate is what the product does with the same flow.
func evaluate(t *testing.T, policies []*Policy, f testFlow) (forwarded, proxied bool, e Entry) {
	t.Helper()
	ep, err := Compile(policies, f.subject)
	if err != nil {
		t.Fatal(err)
	}
	peer := f.peer
	if f.addr.IsValid() {
		peer = PeerOf(f.addr, ep.Prefixes(f.dir))
	}
	e = ep.Lookup(f.dir, peer, f.proto, f.port)
	if e.First > f.port || e.Last < f.port || e.Proto != f.proto {
		t.Fatalf("lookup of %d/%d found %+v", f.proto, f.port, e)
	}
	checkTable(t, ep, f, peer, e)
	switch e.Action {
	case ActionAllow:
		return true, false, e
	case ActionRedirect:
		return e.Rules.Decide(f.req).Allowed(), true, e
	}
	return false, false, e
}

// checkTable holds the table to its promises: sorted, disjoint, without gaps where nothing
// closes the direction, and of one mind with Lookup.
func checkTable(t *testing.T, ep *EndpointPolicy, f testFlow, peer Peer, want Entry) {
	t.Helper()
	table := ep.Table(f.dir, peer)
	listed := func(proto uint8) bool {
		return slices.ContainsFunc(table, func(e Entry) bool { return e.Proto == proto })
	}
	proto := f.proto
	if !listed(proto) {
		// Absence denies; but a protocol that no rule names is in the table as 0.
		proto = 0
	}
	var found *Entry
	for i := range table {
		e := &table[i]
		if e.First > e.Last {
			t.Fatalf("range backwards: %+v", e)
		}
		if i > 0 {
			if b := table[i-1]; b.Proto > e.Proto || b.Proto == e.Proto && b.Last >= e.First {
				t.Fatalf("not sorted or not disjoint: %+v, %+v", b, e)
			}
		}
		if e.Proto == proto && e.First <= f.port && f.port <= e.Last {
			found = e
		}
	}
	switch {
	case found == nil && want.Action != ActionDeny:
		t.Fatalf("no entry for %d/%d in %+v, lookup says %+v", f.proto, f.port, table, want)
	case found == nil && !ep.Enforced(f.dir):
		t.Fatalf("a gap at %d/%d although nothing closes the direction", f.proto, f.port)
	case found != nil && (found.Action != want.Action || found.Rules != want.Rules || found.Policy != want.Policy):
		t.Fatalf("table says %+v, lookup %+v", found, want)
	}
}

// Values that random policies and flows are made of: few, so that they meet.
var (
	testApps     = []string{"a", "b", "c"}
	testPorts    = []uint16{1, 79, 80, 81, 90, 65535}
	testMethods  = []string{"GET", "POST", "DELETE"}
	testPaths    = []string{"/", "/a", "/a/b", "/b", "/public"}
	testPatterns = []string{"/a", "/a.*", "/(a|b)", "/public([/?].*)?", ".*", "/[^/]*"}
	testPrefixes = []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0", "fd00::/8", "fd00::1/128"}
	testAddrs    = []string{"10.1.2.3", "10.1.2.4", "10.1.3.1", "10.2.0.1", "192.0.2.1", "fd00::1", "fd00::2", "2001:db8::1"}
)

type generator struct {
	*rand.Rand
	t *testing.T
}

func pick[T any](g generator, list []T) T { return list[g.IntN(len(list))] }

func (g generator) labels(app string) identity.Labels {
	ls, err := identity.Workload("", "app="+app)
	if err != nil {
		g.t.Fatal(err)
	}
	return ls
}

func (g generator) pattern(list []string) *match.Pattern {
	if g.IntN(3) == 0 {
		return nil
	}
	return testPattern(pick(g, list))
}

func (g generator) selector() identity.Selector {
	var reqs []identity.Requirement
	switch g.IntN(4) {
	case 0:
		reqs = append(reqs, identity.Requirement{Source: "any", Key: "app", Op: identity.NotIn, Values: []string{pick(g, testApps)}})
	case 1:
		reqs = append(reqs, identity.Requirement{Source: "k8s", Key: "app", Op: identity.Exists})
	default:
		reqs = append(reqs, identity.Requirement{Source: "any", Key: "app", Op: identity.In, Values: []string{pick(g, testApps)}})
	}
	s, err := identity.NewSelector(append(reqs, identity.Requirement{Source: "k8s", Key: identity.NamespaceKey, Op: identity.Exists})...)
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

func (g generator) rule(index int) Rule {
	r := Rule{Direction: flow.Direction(g.IntN(2)), Deny: g.IntN(4) == 0, Index: index}
	switch g.IntN(5) {
	case 0:
		r.Peers.Any = true
	case 1:
		for range g.IntN(3) {
			r.Peers.Endpoints = append(r.Peers.Endpoints, g.selector())
		}
	case 2:
		r.Peers.Entities = []Entity{pick(g, []Entity{EntityAll, EntityWorld, EntityHost, EntityCluster, EntityNone})}
	default:
		c := CIDR{Prefix: netip.MustParsePrefix(pick(g, testPrefixes))}
		for _, e := range testPrefixes {
			if p := netip.MustParsePrefix(e); g.IntN(3) == 0 && contains(c.Prefix, p) && p != c.Prefix {
				c.Except = append(c.Except, p)
			}
		}
		r.Peers.CIDRs = append(r.Peers.CIDRs, c)
	}
	if g.IntN(5) == 0 {
		r.AnyPort = true
		return r
	}
	for range 1 + g.IntN(2) {
		var pr PortRule
		for range 1 + g.IntN(2) {
			ports := PortRange{Proto: ProtoTCP, First: pick(g, testPorts)}
			ports.Last = ports.First
			switch g.IntN(8) {
			case 0, 1, 2:
				ports.Last = max(ports.First, pick(g, testPorts))
			case 3:
				ports.Proto = pick(g, []uint8{ProtoUDP, ProtoSCTP, ProtoTCP})
			}
			pr.Ports = append(pr.Ports, ports)
		}
		if g.IntN(3) > 0 && !slices.ContainsFunc(pr.Ports, func(p PortRange) bool { return p.Proto != ProtoTCP }) {
			pr.Protocol = HTTP
			for range 1 + g.IntN(3) {
				h := HTTPRule{Method: g.pattern(testMethods), Path: g.pattern(testPatterns)}
				if g.IntN(4) == 0 {
					h.Headers = []HeaderMatch{{Name: "X-A", Value: "1", Exact: g.IntN(2) == 0}}
				}
				pr.HTTP = append(pr.HTTP, h)
			}
		}
		r.Ports = append(r.Ports, pr)
	}
	return r
}

func (g generator) policies() []*Policy {
	var all []*Policy
	for i := range 1 + g.IntN(4) {
		p := &Policy{Namespace: "default", Name: fmt.Sprintf("p%d", i), Subject: g.selector(), Open: [2]bool{g.IntN(5) == 0, g.IntN(5) == 0}}
		for j := range 1 + g.IntN(4) {
			p.Rules = append(p.Rules, g.rule(j))
		}
		all = append(all, p)
	}
	return all
}

func (g generator) flow() testFlow {
	f := testFlow{dir: flow.Direction(g.IntN(2)), subject: g.labels(pick(g, testApps)), proto: pick(g, []uint8{ProtoTCP, ProtoTCP, ProtoTCP, ProtoTCP, ProtoTCP, ProtoTCP, ProtoUDP, ProtoSCTP, 1}), port: pick(g, testPorts)}
	switch g.IntN(4) {
	case 0:
		f.peer = Peer{ID: identity.Host}
	case 1:
		f.addr = netip.MustParseAddr(pick(g, testAddrs))
	default:
		app := pick(g, testApps)
		f.peer = Peer{ID: identity.FirstEndpoint + identity.ID(app[0]), Labels: g.labels(app)}
	}
	f.req = &HTTPRequest{Proto: "HTTP/1.1", Method: []byte(pick(g, testMethods)), Path: []byte(pick(g, testPaths))}
	for range g.IntN(3) {
		f.req.Header = append(f.req.Header, HeaderField{[]byte(pick(g, []string{"X-A", "x-a", "X-B"})), []byte(pick(g, []string{"1", "2"}))})
	}
	return f
}

const randomSets, flowsPerSet = 1000, 30

func forEachSet(t *testing.T, f func(g generator, policies []*Policy)) {
	for seed := range uint64(randomSets) {
		g := generator{rand.New(rand.NewPCG(seed, 3)), t}
		f(g, g.policies())
		if t.Failed() {
			t.Fatalf("random set %d", seed)
		}
	}
}

func TestAgreesWithReference(t *testing.T) {
	n := map[string]int{}
	forEachSet(t, func(g generator, policies []*Policy) {
		for range flowsPerSet {
			f := g.flow()
			want, wantProxy := reference(policies, f)
			got, gotProxy, e := evaluate(t, policies, f)
			// A connection that is refused whatever is said on it needs no proxy.
			if got != want || gotProxy && !wantProxy || wantProxy && !gotProxy && e.Action == ActionAllow {
				t.Errorf("%v: forwarded %v proxied %v (%+v), reference says %v %v", f, got, gotProxy, e, want, wantProxy)
			}
			n[fmt.Sprint(got, gotProxy)]++
		}
	})
	// The random sets must reach every outcome often, or they show nothing.
	for _, outcome := range []string{"true true", "true false", "false true", "false false"} {
		if n[outcome] < randomSets/2 {
			t.Errorf("%s too rarely: %v", outcome, n)
		}
	}
}

func TestOrderMeansNothing(t *testing.T) {
	forEachSet(t, func(g generator, policies []*Policy) {
		shuffled := make([]*Policy, len(policies))
		for i, p := range policies {
			q := *p
			q.Rules = slices.Clone(p.Rules)
			for j := range q.Rules {
				r := &q.Rules[j]
				r.Ports = slices.Clone(r.Ports)
				for k := range r.Ports {
					r.Ports[k].HTTP = slices.Clone(r.Ports[k].HTTP)
					http, ports := r.Ports[k].HTTP, slices.Clone(r.Ports[k].Ports)
					r.Ports[k].Ports = ports
					g.Shuffle(len(http), func(a, b int) { http[a], http[b] = http[b], http[a] })
					g.Shuffle(len(ports), func(a, b int) { ports[a], ports[b] = ports[b], ports[a] })
				}
				g.Shuffle(len(r.Ports), func(a, b int) { r.Ports[a], r.Ports[b] = r.Ports[b], r.Ports[a] })
			}
			g.Shuffle(len(q.Rules), func(a, b int) { q.Rules[a], q.Rules[b] = q.Rules[b], q.Rules[a] })
			shuffled[i] = &q
		}
		g.Shuffle(len(shuffled), func(a, b int) { shuffled[a], shuffled[b] = shuffled[b], shuffled[a] })
		for range flowsPerSet / 3 {
			f := g.flow()
			want, wantProxy, _ := evaluate(t, policies, f)
			if got, gotProxy, e := evaluate(t, shuffled, f); got != want || gotProxy != wantProxy {
				t.Errorf("%v: %v %v in order, %v %v (%+v) shuffled", f, want, wantProxy, got, gotProxy, e)
			}
		}
	})
}

func TestAllowsOnlyOpenAndDeniesOnlyClose(t *testing.T) {
	forEachSet(t, func(g generator, policies []*Policy) {
		extra := g.rule(9)
		p := *pick(g, policies)
		// A rule that is the first of its direction closes it; that is no question of what
		// it covers.
		if !slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Direction == extra.Direction }) {
			return
		}
		p.Rules = append(slices.Clone(p.Rules), extra)
		more := append(slices.Clone(policies), &p)
		for range flowsPerSet / 3 {
			f := g.flow()
			before, _, _ := evaluate(t, policies, f)
			after, _, e := evaluate(t, more, f)
			if !extra.Deny && before && !after || extra.Deny && !before && after {
				t.Errorf("%v: %v before a rule with deny %v was added, %v after (%+v)", f, before, extra.Deny, after, e)
			}
		}
	})
}
