package l7rules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// evaluate is what the product does with the same flow.
func evaluate(t *testing.T, policies []*Policy, f testFlow) (verdict flow.Verdict, proxied bool, e Entry) {
	t.Helper()
	ep, err := Compile(policies, f.subject)
	if err != nil {
		t.Fatal(err)
	}
	peer := f.peer
	if f.addr.IsValid() {
		peer = PeerOf(f.addr, ep.Prefixes(f.dir))
		peer.Names = f.names
	}
	e = ep.Lookup(f.dir, peer, f.proto, f.port)
	if e.First > f.port || e.Last < f.port || e.Proto != f.proto {
		t.Fatalf("lookup of %d/%d found %+v", f.proto, f.port, e)
	}
	checkTable(t, ep, f, peer, e)
	d := e.Decision()
	if e.Action == ActionRedirect {
		d = e.Rules.Decide(f.req)
		proxied = true
	}
	if d.Verdict != flow.Forwarded && d.Policy == "" && d.Reason == "" {
		t.Fatalf("%v without a reason: %+v", d.Verdict, e)
	}
	return d.Verdict, proxied, e
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
	case found != nil && (found.Action != want.Action || found.Rules != want.Rules || found.Policy != want.Policy || found.Audit != want.Audit):
		t.Fatalf("table says %+v, lookup %+v", found, want)
	}
}

// The race detector sees what it can see in fewer.
const randomSets, flowsPerSet = 3000 / ((slow + 4) / 5), 30

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
			f := g.flow(policies)
			want, wantProxy := reference(policies, f)
			got, gotProxy, e := evaluate(t, policies, f)
			// A connection that is refused whatever is said on it needs no proxy.
			if got != want || gotProxy && !wantProxy || wantProxy && !gotProxy && e.Action == ActionAllow {
				t.Errorf("%v: %v proxied %v (%+v), reference says %v %v", f, got, gotProxy, e, want, wantProxy)
			}
			n[fmt.Sprint(got, gotProxy)]++
			if gotProxy {
				n[fmt.Sprintf("%s %v", e.Rules.Protocol(), got)]++
			}
		}
	})
	// The random sets must reach every outcome often, or they show nothing.
	for _, outcome := range []string{"FORWARDED true", "FORWARDED false", "AUDIT true", "AUDIT false", "DROPPED true", "DROPPED false",
		"http FORWARDED", "http AUDIT", "http DROPPED", "dns FORWARDED", "dns AUDIT", "dns DROPPED",
		"tls FORWARDED", "tls AUDIT", "tls DROPPED", "kafka FORWARDED", "kafka AUDIT", "kafka DROPPED"} {
		if n[outcome] < randomSets/30 {
			t.Errorf("%s too rarely: %v", outcome, n)
		}
	}
}

func shuffled[T any](g generator, list []T) []T {
	list = slices.Clone(list)
	g.Shuffle(len(list), func(a, b int) { list[a], list[b] = list[b], list[a] })
	return list
}

func TestOrderMeansNothing(t *testing.T) {
	forEachSet(t, func(g generator, policies []*Policy) {
		other := make([]*Policy, len(policies))
		for i, p := range policies {
			q := *p
			q.Rules = slices.Clone(p.Rules)
			for j := range q.Rules {
				r := &q.Rules[j]
				r.Ports = slices.Clone(r.Ports)
				for k := range r.Ports {
					pr := &r.Ports[k]
					pr.Ports, pr.HTTP, pr.DNS = shuffled(g, pr.Ports), shuffled(g, pr.HTTP), shuffled(g, pr.DNS)
					pr.TLS, pr.Kafka = shuffled(g, pr.TLS), shuffled(g, pr.Kafka)
				}
				r.Ports = shuffled(g, r.Ports)
			}
			q.Rules = shuffled(g, q.Rules)
			other[i] = &q
		}
		other = shuffled(g, other)
		for range flowsPerSet / 3 {
			f := g.flow(policies)
			want, wantProxy, _ := evaluate(t, policies, f)
			if got, gotProxy, e := evaluate(t, other, f); got != want || gotProxy != wantProxy {
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
		rank := map[flow.Verdict]int{flow.Dropped: 0, flow.Audit: 1, flow.Forwarded: 2}
		for range flowsPerSet / 3 {
			f := g.flow(policies)
			before, _, _ := evaluate(t, policies, f)
			after, _, e := evaluate(t, more, f)
			if !extra.Deny && rank[after] < rank[before] || extra.Deny && rank[after] > rank[before] {
				t.Errorf("%v: %v before a rule with deny %v was added, %v after (%+v)", f, before, extra.Deny, after, e)
			}
		}
	})
}
