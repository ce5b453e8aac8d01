package l7rules

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// resolved are the tables of a subject by peer, as Resolver.Tables has them.
func resolved(t *testing.T, r *Resolver, subject identity.Labels, dir flow.Direction) map[identity.ID][]Entry {
	t.Helper()
	all := map[identity.ID][]Entry{}
	r.Tables(subject, dir, func(peers []identity.ID, table []Entry) {
		for _, id := range peers {
			if all[id] != nil {
				t.Fatalf("peer %v twice", id)
			}
			all[id] = table
		}
	})
	return all
}

// Whatever policies, subjects and peers were before, a Resolver says what Compile says.
func TestResolverAgreesWithCompile(t *testing.T) {
	r := &Resolver{}
	var policies []*Policy
	kept := 0
	for seed := range uint64(300) {
		g := generator{rand.New(rand.NewPCG(seed, 4)), t}
		next := g.policies()
		for _, p := range policies {
			if g.IntN(3) > 0 {
				p := *p // what is read again from a file
				p.Rules = slices.Clone(p.Rules)
				p.Origin.Line++
				next = append(next, &p)
			}
		}
		policies = shuffled(g, next)[:min(len(next), 8)]
		var subjects []identity.Labels
		peers := []Peer{{}, {ID: identity.Host}, {ID: identity.WorldIPv4}}
		for i, app := range testApps {
			if g.IntN(4) > 0 {
				subjects = append(subjects, g.labels(app))
			}
			if g.IntN(4) > 0 {
				peers = append(peers, Peer{ID: identity.FirstEndpoint + identity.ID(i), Labels: g.labels(app)})
			}
		}
		for i, prefix := range testPrefixes {
			peers = append(peers, Peer{ID: identity.FirstLocal + identity.ID(i), Prefix: netip.MustParsePrefix(prefix)})
		}
		before := r
		var err error
		if g.IntN(2) == 0 { // whichever comes first
			r = r.WithPeers(peers)
		}
		if r, err = r.Update(policies, subjects); err != nil {
			t.Fatal(err)
		}
		if r = r.WithPeers(peers); r != r.WithPeers(slices.Clone(peers)) {
			t.Fatal("the same peers make another Resolver")
		}
		for _, s := range subjects {
			ep, err := Compile(policies, s)
			if err != nil {
				t.Fatal(err)
			}
			if r.Policy(s) == before.Policy(s) {
				kept++
			}
			for _, dir := range []flow.Direction{flow.Egress, flow.Ingress} {
				if !slices.Equal(ep.Prefixes(dir), r.Policy(s).Prefixes(dir)) || ep.Enforced(dir) != r.Policy(s).Enforced(dir) || ep.HasRules(dir) != r.Policy(s).HasRules(dir) {
					t.Fatalf("set %d: %s: prefixes or defaults differ", seed, s)
				}
				tables := resolved(t, r, s, dir)
				for _, p := range peers {
					for _, proto := range []uint8{ProtoTCP, ProtoUDP, ProtoSCTP, 1} {
						for _, port := range testPorts {
							want, got := entryAt(ep.Table(dir, p), proto, port), entryAt(tables[p.ID], proto, port)
							if want.Action != got.Action || want.Audit != got.Audit || want.Rules.Protocol() != got.Rules.Protocol() {
								t.Fatalf("set %d: %s and %v, %d/%d: %+v, want %+v", seed, s, p, proto, port, got, want)
							}
							if want.Action == ActionRedirect {
								req := g.request(want.Rules.Protocol())
								if a, b := want.Rules.Decide(req), got.Rules.Decide(req); a.Verdict != b.Verdict {
									t.Fatalf("set %d: %s and %v, %s: %+v, want %+v", seed, s, p, req.AppendText(nil), b, a)
								}
							}
						}
					}
				}
			}
		}
		for _, app := range testApps {
			ls := g.labels(app)
			if !slices.ContainsFunc(subjects, ls.Equal) && r.Policy(ls).Lookup(flow.Egress, Peer{ID: identity.Host}, ProtoTCP, 80).Action != ActionDeny {
				t.Fatalf("%s is no subject and is not denied", ls)
			}
		}
	}
	if kept < 20 {
		t.Errorf("only %d EndpointPolicies taken over: too few to show anything", kept)
	}
}

// entryAt finds an entry in a table; the zero one, which denies, where there is none.
func entryAt(table []Entry, proto uint8, port uint16) Entry {
	if !slices.ContainsFunc(table, func(e Entry) bool { return e.Proto == proto }) {
		proto = 0
	}
	for _, e := range table {
		if e.Proto == proto && e.First <= port && port <= e.Last {
			return e
		}
	}
	return Entry{}
}

func TestResolverTakesOver(t *testing.T) {
	a, b := labelled(t, "app=a"), labelled(t, "app=b")
	about := func(name, app string, line int) *Policy {
		s, err := identity.NewSelector(identity.Requirement{Source: "any", Key: "app", Op: identity.In, Values: []string{app}})
		if err != nil {
			t.Fatal(err)
		}
		return &Policy{Name: name, Origin: Origin{File: "f.yaml", Line: line}, Subject: s, Rules: []Rule{{Peers: Peers{Any: true}, AnyPort: true, Origin: Origin{Line: line}}}}
	}
	subjects := []identity.Labels{a, b, a}
	one, err := (&Resolver{}).Update([]*Policy{about("x", "a", 1), about("y", "b", 9)}, subjects)
	if err != nil {
		t.Fatal(err)
	}
	// Read again, from another place and in another order; y says something else.
	y := about("y", "b", 1)
	y.Rules[0].Deny = true
	two, err := one.Update([]*Policy{y, about("x", "a", 5)}, subjects)
	if err != nil {
		t.Fatal(err)
	}
	if one.Policy(a) != two.Policy(a) {
		t.Error("a is selected by what it was selected by, and resolved anew")
	}
	if one.Policy(b) == two.Policy(b) {
		t.Error("b keeps a policy that has changed")
	}
	if two.Policies()[1] != one.Policies()[0] || two.Policies()[0] != y {
		t.Error("policies are not those of before")
	}
	three, err := two.Update(two.Policies()[:1], subjects)
	if err != nil {
		t.Fatal(err)
	}
	if two.Policy(a) == three.Policy(a) || three.Policy(a).Selected() {
		t.Error("a keeps a policy that is gone")
	}
	// Two selected by the same policies share what they mean.
	c := labelled(t, "app=a", "tier=x")
	four, err := one.Update(one.Policies(), []identity.Labels{a, c})
	if err != nil {
		t.Fatal(err)
	}
	if four.Policy(c) != one.Policy(a) {
		t.Error("two with the same policies have two EndpointPolicies")
	}
	// What cannot be resolved changes nothing.
	bad := about("z", "a", 1)
	bad.Rules = []Rule{{Peers: Peers{Any: true}, Ports: http80(HTTPRule{})}, {Peers: Peers{Any: true}, Ports: http80()}}
	bad.Rules[1].Ports[0].Protocol = Kafka
	if _, err := four.Update(append(four.Policies(), bad), []identity.Labels{a, c}); err == nil || !strings.Contains(err.Error(), "resolve policies for endpoint app=a") {
		t.Errorf("two protocols: %v", err)
	}
	if four.Policy(c) != one.Policy(a) {
		t.Error("a failed update left something behind")
	}
}

func labelled(t testing.TB, texts ...string) identity.Labels {
	t.Helper()
	ls, err := identity.Workload("", texts...)
	if err != nil {
		t.Fatal(err)
	}
	return ls
}

// Whatever field of a policy changes, it is another one; but where it stands is no matter.
func TestPolicyEqualSeesEveryField(t *testing.T) {
	name, err := match.CompileName("a.test")
	if err != nil {
		t.Fatal(err)
	}
	selector, err := identity.NewSelector(identity.Requirement{Source: "any", Key: "app", Op: identity.Exists})
	if err != nil {
		t.Fatal(err)
	}
	version := int16(1)
	// One of everything: a field that is empty here is reported.
	full := func() *Policy {
		return &Policy{Kind: "k", Namespace: "n", Name: "p", Spec: "s", Subject: selector, Audit: true,
			Rules: []Rule{{Direction: flow.Ingress, Deny: true, Index: 1, AnyPort: true,
				Peers: Peers{Any: true, Endpoints: []identity.Selector{selector}, Entities: []Entity{EntityAll}, Names: []match.Name{name},
					CIDRs: []CIDR{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Except: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}}},
				Ports: []PortRule{{Ports: []PortRange{{ProtoTCP, 1, 2}}, Protocol: HTTP, DNS: []NameRule{{Name: name}}, TLS: []NameRule{{Name: name}},
					HTTP: []HTTPRule{{Method: testPattern("GET"), Path: testPattern("/a"), Host: testPattern("h"), GRPC: "a/b",
						Headers: []HeaderMatch{{"A", "1", true}}, Log: []HeaderMatch{{"A", "1", true}}}},
					Kafka: []KafkaRule{{Role: KafkaProduce, APIKeys: []int16{1}, APIVersion: &version, ClientID: "c",
						Topic: KafkaName{"t", true}, Group: KafkaName{"g", true}, TransactionalID: KafkaName{"x", true}}}}}}}}
	}
	if !full().Equal(full()) {
		t.Fatal("two that say the same are not equal")
	}
	moved := full()
	moved.Origin, moved.Rules[0].Origin, moved.Rules[0].Ports[0].HTTP[0].Origin = Origin{Line: 1}, Origin{Line: 2}, Origin{Line: 3}
	if !moved.Equal(full()) {
		t.Error("one that stands elsewhere is another")
	}
	fields := 0
	var walk func(path string, v reflect.Value, p *Policy)
	check := func(path string, v reflect.Value, p *Policy, other reflect.Value) {
		fields++
		old := reflect.New(v.Type()).Elem()
		old.Set(v)
		v.Set(other)
		if p.Equal(full()) || full().Equal(p) {
			t.Errorf("%s is not compared", path)
		}
		v.Set(old)
	}
	walk = func(path string, v reflect.Value, p *Policy) {
		switch {
		case v.Type() == reflect.TypeFor[Origin]():
			return
		case v.IsZero() && v.Kind() != reflect.Array && path != ".Rules[0].Ports[0].Ports[0].Proto" && !strings.Contains(path, "Open[") && !strings.Contains(path, "Closes["):
			t.Errorf("%s is empty in this test", path)
		case v.Type() == reflect.TypeFor[identity.Selector](), v.Type() == reflect.TypeFor[match.Name](), v.Type() == reflect.TypeFor[netip.Prefix](), v.Type() == reflect.TypeFor[*match.Pattern](), v.Type() == reflect.TypeFor[*int16]():
			check(path, v, p, reflect.Zero(v.Type()))
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				walk(path+"."+v.Type().Field(i).Name, v.Field(i), p)
			}
		case v.Kind() == reflect.Slice, v.Kind() == reflect.Array:
			if v.Kind() == reflect.Slice {
				check(path, v, p, reflect.Zero(v.Type()))
			}
			for i := range v.Len() {
				walk(fmt.Sprintf("%s[%d]", path, i), v.Index(i), p)
			}
		case v.Kind() == reflect.Bool:
			check(path, v, p, reflect.ValueOf(!v.Bool()).Convert(v.Type()))
		default:
			check(path, v, p, reflect.Zero(v.Type()))
		}
	}
	p := full()
	walk("", reflect.ValueOf(p).Elem(), p)
	if fields < 40 {
		t.Errorf("only %d fields seen", fields)
	}
}
