//go:build linux

package agent

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/weir-proxy/weir/internal/testbed"
	"github.com/weir-proxy/weir/internal/testbed/netns"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// ownNamespace marks a test that was started anew in a network namespace of its own,
// which is the node's then.
const ownNamespace = "WEIR_TEST_OWN_NAMESPACE"

// inOwnNamespace runs the calling test anew in a fresh network namespace; in there it
// returns true.
func inOwnNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(ownNamespace) != "" {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Fatal(err)
		}
		return true
	}
	testbed.NeedKernel(t)
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "120s")
	cmd.Env = append(os.Environ(), ownNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a namespace of its own: %v\n%s", err, out)
	}
	return false
}

// wire joins two namespaces, "" the node's, by IPv4 and IPv6: 10.98.n.1 and fd98:n::1
// at a, .2 and ::2 at b.
func wire(t *testing.T, a, b string, n int) {
	t.Helper()
	end := func(path, dev string, host int) netns.End {
		return netns.End{Path: path, Device: fmt.Sprintf("%s%d", dev, n), Addrs: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.98.%d.%d/24", n, host)), netip.MustParsePrefix(fmt.Sprintf("fd98:%d::%d/64", n, host)),
		}}
	}
	if err := netns.Wire(end(a, "wa", 1), end(b, "wb", 2)); err != nil {
		t.Fatal(err)
	}
}

// Two cgroups of the node and two namespaces, all pairs, in both families, with and
// without rules on either side: who is allowed gets through and is seen as what it is.
func TestPairs(t *testing.T) {
	if !inOwnNamespace(t) {
		return
	}
	r := newRig(t)
	// A client that is done may not have been seen to end when the policy changes.
	r.skip = func(rec *flow.Record) bool { return strings.HasPrefix(rec.Reason, "closed: the policy changed") }
	n1, n2 := namespace(t), namespace(t)
	wire(t, "", n1, 1)
	wire(t, "", n2, 2)
	wire(t, n1, n2, 3)
	type end struct {
		name, ns, cg string
		port         int
		node         int // the number of its wire to the node, 0: it is on it
	}
	ends := []end{{name: "c1", port: 8081}, {name: "c2", port: 8082}, {name: "n1", ns: n1, port: 8083, node: 1}, {name: "n2", ns: n2, port: 8084, node: 2}}
	var list []Workload
	for i := range ends {
		e := &ends[i]
		w := Workload{Name: "default/" + e.name, Labels: labels(t, "app="+e.name), Netns: e.ns}
		e.cg = r.cg
		if e.ns == "" {
			e.cg = filepath.Join(r.cg, e.name)
			if err := os.Mkdir(e.cg, 0o755); err != nil {
				t.Fatal(err)
			}
			w.Cgroup = r.group + "/" + e.name
		}
		list = append(list, w)
	}
	r.setWorkloads(list...)
	for _, e := range ends {
		r.serve(e.ns, e.cg, fmt.Sprintf(":%d", e.port))
	}
	// address is where from reaches to, and what to sees from as.
	address := func(from, to end, v6 bool) (dst, src string) {
		pick := func(n, host int) string {
			if v6 {
				return fmt.Sprintf("fd98:%d::%d", n, host)
			}
			return fmt.Sprintf("10.98.%d.%d", n, host)
		}
		switch {
		case from.node == 0 && to.node == 0 && v6:
			return "::1", "::1"
		case from.node == 0 && to.node == 0:
			return "127.0.0.1", "127.0.0.1"
		case from.node == 0:
			return pick(to.node, 2), pick(to.node, 1)
		case to.node == 0:
			return pick(from.node, 1), pick(from.node, 2)
		}
		return pick(3, to.node), pick(3, from.node)
	}
	for _, rules := range []struct{ egress, ingress bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		for _, from := range ends {
			for _, to := range ends {
				if from.name == to.name {
					continue
				}
				policy := ""
				if rules.egress {
					policy += pairPolicy("out", from.name, "egress", "toEndpoints", to.name, to.port)
				}
				if rules.ingress {
					policy += pairPolicy("in", to.name, "ingress", "fromEndpoints", from.name, to.port)
				}
				r.setPolicies(policy)
				for _, v6 := range []bool{false, true} {
					dst, src := address(from, to, v6)
					what := fmt.Sprintf("%s -> %s (%s), rules %+v", from.name, to.name, dst, rules)
					url := "http://" + netip.AddrPortFrom(netip.MustParseAddr(dst), uint16(to.port)).String() + "/x"
					got := r.get(from.ns, from.cg, "GET", url)
					body, client, _ := strings.Cut(got, " from ")
					host, _, _ := net.SplitHostPort(client)
					if body != "200 GET /x" || host != src {
						t.Errorf("%s: %s, want to be seen as %s", what, got, src)
					}
					if rules.egress || rules.ingress {
						if got := r.get(from.ns, from.cg, "POST", url); got != "403 Access denied" {
							t.Errorf("%s: POST %s", what, got)
						}
					}
					// One record for each side that was asked: the kernel's, of an open
					// sender, for each connection.
					n := 1
					switch {
					case rules.egress && rules.ingress:
						n = 3 // the POST ends on the sender's side
					case rules.egress:
						n = 2
					case rules.ingress:
						n = 4
					}
					for _, rec := range r.take(n) {
						if rec.Source.Name != "default/"+from.name || rec.Destination.Name != "default/"+to.name {
							t.Errorf("%s: record %+v", what, rec)
						}
					}
				}
				if !rules.ingress {
					continue
				}
				// Anybody else is refused.
				for _, other := range ends {
					if other.name == from.name || other.name == to.name {
						continue
					}
					dst, _ := address(other, to, false)
					if got := r.get(other.ns, other.cg, "GET", fmt.Sprintf("http://%s:%d/x", dst, to.port)); got != "connection refused" {
						t.Errorf("%s to the port of %s for %s: %s", other.name, to.name, from.name, got)
					}
				}
				r.take(4) // two that set out, and were refused
			}
		}
	}
}

func pairPolicy(name, subject, direction, peers, peer string, port int) string {
	return fmt.Sprintf(`
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: %s}
spec:
  endpointSelector: {matchLabels: {app: %s}}
  %s:
  - %s: [{matchLabels: {app: %s}}]
    toPorts:
    - ports: [{port: "%d", protocol: TCP}]
      rules: {http: [{method: GET}]}
`, name, subject, direction, peers, peer, port)
}
