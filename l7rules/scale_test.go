//go:build unix

package l7rules

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// cluster is a thousand policies for a thousand endpoints in twenty namespaces.
func cluster(t testing.TB, n int) (policies []*Policy, subjects []identity.Labels, peers []Peer) {
	g := rand.New(rand.NewPCG(5, 5))
	selector := func(ns string, reqs ...identity.Requirement) identity.Selector {
		if ns != "" {
			reqs = append(reqs, identity.Requirement{Source: "k8s", Key: identity.NamespaceKey, Op: identity.In, Values: []string{ns}})
		}
		s, err := identity.NewSelector(reqs...)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	is := func(key string, of int) identity.Requirement {
		return identity.Requirement{Source: "any", Key: key, Op: identity.In, Values: []string{fmt.Sprint(g.IntN(of))}}
	}
	const namespaces, apps, tiers = 20, 50, 5
	peers = []Peer{{ID: identity.Host}, {ID: identity.WorldIPv4}, {ID: identity.WorldIPv6}}
	for i := range n {
		ns := fmt.Sprintf("ns%d", i%namespaces)
		ls, err := identity.Workload(ns, fmt.Sprintf("app=%d", i/namespaces%apps), fmt.Sprintf("tier=%d", g.IntN(tiers)), fmt.Sprintf("pod=%d", i))
		if err != nil {
			t.Fatal(err)
		}
		subjects = append(subjects, ls)
		peers = append(peers, Peer{ID: identity.FirstEndpoint + identity.ID(i), Labels: ls})
	}
	for i := range n {
		ns := fmt.Sprintf("ns%d", i%namespaces)
		p := &Policy{Namespace: ns, Name: fmt.Sprintf("p%d", i)}
		switch g.IntN(10) {
		case 0:
			p.Subject = selector(ns)
		case 1, 2, 3:
			p.Subject = selector(ns, is("tier", tiers))
		default:
			p.Subject = selector(ns, is("app", apps))
		}
		if i%200 == 0 {
			p.Namespace, p.Subject = "", selector("") // clusterwide
		}
		for j := range 4 {
			r := Rule{Direction: flow.Direction(j % 2), Index: j / 2, Deny: g.IntN(10) == 0}
			port := uint16(8000 + g.IntN(20))
			r.Ports = []PortRule{{Ports: []PortRange{{ProtoTCP, port, port}}}}
			switch g.IntN(6) {
			case 0:
				prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(g.IntN(4)), byte(g.IntN(4)), 0}), 24)
				r.Peers.CIDRs = []CIDR{{Prefix: prefix}}
			case 1:
				r.Peers.Entities = []Entity{EntityCluster}
			default:
				r.Peers.Endpoints = []identity.Selector{selector(ns, is("app", apps)), selector("", is("tier", tiers), is("app", apps))}
			}
			if g.IntN(2) == 0 && !r.Deny {
				r.Ports[0].Protocol = HTTP
				r.Ports[0].HTTP = []HTTPRule{{Method: testPattern("GET"), Path: testPattern(fmt.Sprintf("/v%d/.*", g.IntN(50)))}}
			}
			p.Rules = append(p.Rules, r)
		}
		policies = append(policies, p)
	}
	seen := map[netip.Prefix]bool{}
	for _, p := range policies {
		for _, r := range p.Rules {
			for _, c := range r.Peers.CIDRs {
				if !seen[c.Prefix] {
					seen[c.Prefix] = true
					peers = append(peers, Peer{ID: identity.FirstLocal + identity.ID(len(seen)), Prefix: c.Prefix})
				}
			}
		}
	}
	return policies, subjects, peers
}

// allTables makes the table of every peer of every subject that is not in done.
func allTables(r *Resolver, subjects []identity.Labels, done *Resolver) (entries, made int) {
	for _, s := range subjects {
		if r.Policy(s) == done.Policy(s) {
			continue
		}
		made++
		for _, dir := range []flow.Direction{flow.Egress, flow.Ingress} {
			r.Tables(s, dir, func(peers []identity.ID, table []Entry) { entries += len(peers) * len(table) })
		}
	}
	return entries, made
}

// cpuTime is what this process has used: others on the machine do not change what is
// measured, and one that does nothing else needs no longer.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The bars for a node, or a cluster of them: a thousand policies for a thousand endpoints,
// every table made, within two seconds and 500 MiB; one policy that changes, within 20 ms.
func TestScaleResolve(t *testing.T) {
	policies, subjects, peers := cluster(t, 1000)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	begin := cpuTime(t)
	r, err := (&Resolver{}).WithPeers(peers).Update(policies, subjects)
	if err != nil {
		t.Fatal(err)
	}
	entries, made := allTables(r, subjects, &Resolver{})
	took := cpuTime(t) - begin
	held := heap() - before
	t.Logf("%d endpoints, %d entries: %v, %d MiB held", made, entries, took, held>>20)
	if made != 1000 || entries < 1_000_000 {
		t.Errorf("%d endpoints, %d entries: too few to show anything", made, entries)
	}
	if took > slow*2*time.Second || held > 500<<20 {
		t.Errorf("it took %v and %d MiB", took, held>>20)
	}

	// Every policy as a file's new contents give it, one of them changed.
	touched := 0
	for i := range 5 {
		next := make([]*Policy, len(policies))
		for j, p := range policies {
			q := *p
			q.Rules = slices.Clone(p.Rules)
			next[j] = &q
		}
		at := 7 + 31*i // one that is about an app, a tier or a namespace
		next[at].Rules[0].Ports = []PortRule{{Ports: []PortRange{{ProtoTCP, 9000 + uint16(i), 9000 + uint16(i)}}}}
		begin := cpuTime(t)
		changed, err := r.Update(next, subjects)
		if err != nil {
			t.Fatal(err)
		}
		_, made := allTables(changed, subjects, r)
		took := cpuTime(t) - begin
		t.Logf("one policy changed: %d endpoints resolved anew, %v", made, took)
		if took > slow*(20*time.Millisecond+time.Duration(made)*2*time.Millisecond) {
			t.Errorf("one policy took %v for %d endpoints", took, made)
		}
		for _, s := range subjects {
			if selects := policies[at].Subject.Matches(s); selects != (changed.Policy(s) != r.Policy(s)) {
				t.Fatalf("%s: selected %v, resolved anew %v", s, selects, !selects)
			}
		}
		touched += made
	}
	if touched == 0 || touched > 300 {
		t.Errorf("%d endpoints resolved anew", touched)
	}
}
