//go:build linux

package agent

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"golang.org/x/sys/unix"
)

const frontendToServer = `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: server}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: frontend}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{method: GET}]}
`

// Two namespaces: the server's policy knows the client by its socket.
func TestTwoNamespaces(t *testing.T) {
	r := newRig(t)
	server, frontend, neighbour := namespace(t), namespace(t), namespace(t)
	join(t, server, frontend, "10.98.0.1", "10.98.0.2", 1)
	join(t, server, neighbour, "10.98.0.1", "10.98.0.3", 2)
	r.setPolicies(frontendToServer)
	r.setWorkloads(
		Workload{Name: "default/server", Labels: labels(t, "app=server"), Netns: server},
		Workload{Name: "default/frontend", Labels: labels(t, "app=frontend"), Netns: frontend},
		Workload{Name: "default/neighbour", Labels: labels(t, "app=neighbour"), Netns: neighbour},
	)
	r.serve(server, r.cg, ":8080")
	url := "http://10.98.0.1:8080/x"

	if got := r.get(frontend, r.cg, "GET", url); !strings.HasPrefix(got, "200 GET /x from 10.98.0.2:") {
		t.Errorf("frontend GET: %s", got)
	}
	if got := r.get(frontend, r.cg, "POST", url); got != "403 Access denied" {
		t.Errorf("frontend POST: %s", got)
	}
	if got := r.get(neighbour, r.cg, "GET", url); got != "connection refused" {
		t.Errorf("neighbour GET: %s", got)
	}
	// One record per side: the senders' are open.
	for _, rec := range r.take(6) {
		if rec.Direction != flow.Ingress {
			continue
		}
		want := map[string]flow.Verdict{"default/frontend": flow.Forwarded, "default/neighbour": flow.Dropped}[rec.Source.Name]
		if strings.Contains(rec.Reason, "POST") {
			want = flow.Dropped
		}
		if rec.Verdict != want || rec.Destination.Name != "default/server" || rec.Source.Identity < 256 || rec.Source.PID == 0 {
			t.Errorf("record %+v", rec)
		}
	}

	// A policy that changes judges the next request.
	r.setPolicies(strings.Replace(frontendToServer, "method: GET", "method: POST", 1))
	if got := r.get(frontend, r.cg, "POST", url); !strings.HasPrefix(got, "200 POST") {
		t.Errorf("after the change, POST: %s", got)
	}
	if got := r.get(frontend, r.cg, "GET", url); got != "403 Access denied" {
		t.Errorf("after the change, GET: %s", got)
	}
	// One that cannot be resolved changes nothing: two kinds of request rules on one port.
	if err := r.a.SetPolicies(unresolvable(r.policies(frontendToServer))); err == nil {
		t.Error("a policy that contradicts itself was taken")
	}
	if got := r.get(frontend, r.cg, "POST", url); !strings.HasPrefix(got, "200 POST") {
		t.Errorf("after the refused change, POST: %s", got)
	}
	s := r.a.Status()
	if len(s.Endpoints) != 3 || s.Endpoints[2].State != Ready || !s.Endpoints[2].Ingress.Enforced {
		t.Errorf("status %+v", s.Endpoints)
	}
}

// unresolvable adds a rule of another protocol to the first one's port.
func unresolvable(list []*l7rules.Policy) []*l7rules.Policy {
	p := *list[0]
	p.Name = "other"
	p.Rules = slices.Clone(p.Rules)
	p.Rules[0].Ports = slices.Clone(p.Rules[0].Ports)
	p.Rules[0].Ports[0].Protocol = "kafka"
	return append(list, &p)
}

// Both ends judge, in their own words, with one record each.
func TestBothSides(t *testing.T) {
	r := newRig(t)
	server, frontend := namespace(t), namespace(t)
	join(t, server, frontend, "10.98.0.1", "10.98.0.2", 1)
	r.setPolicies(frontendToServer + `---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: frontend}
spec:
  endpointSelector: {matchLabels: {app: frontend}}
  egress:
  - toEndpoints: [{matchLabels: {app: server}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{path: "/x"}]}
`)
	r.setWorkloads(
		Workload{Name: "default/server", Labels: labels(t, "app=server"), Netns: server},
		Workload{Name: "default/frontend", Labels: labels(t, "app=frontend"), Netns: frontend},
	)
	r.serve(server, r.cg, ":8080")
	for _, tt := range []struct{ method, path, want string }{
		{"GET", "/x", "200 GET /x from 10.98.0.2:"},
		{"GET", "/y", "403 Access denied"},  // the sender's side
		{"POST", "/x", "403 Access denied"}, // the receiver's
	} {
		if got := r.get(frontend, r.cg, tt.method, "http://10.98.0.1:8080"+tt.path); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s %s: %s", tt.method, tt.path, got)
		}
	}
	n := map[flow.Direction]int{}
	for _, rec := range r.take(5) {
		n[rec.Direction]++
		// One connection through one proxy: its client is the process, not the proxy.
		if rec.Source.Name != "default/frontend" || rec.Destination.Name != "default/server" || rec.Source.PID == 0 {
			t.Errorf("record %+v", rec)
		}
	}
	if n[flow.Egress] != 3 || n[flow.Ingress] != 2 {
		t.Errorf("records by side: %v", n)
	}
}

// Services of one namespace are told apart by their cgroups.
func TestCgroups(t *testing.T) {
	r := newRig(t)
	dir := func(name string) string {
		p := filepath.Join(r.cg, name)
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
		return p
	}
	server, frontend, other := dir("server"), dir("frontend"), dir("other")
	r.setPolicies(frontendToServer)
	r.setWorkloads(
		Workload{Name: "default/server", Labels: labels(t, "app=server"), Cgroup: r.group + "/server"},
		Workload{Name: "default/frontend", Labels: labels(t, "app=frontend"), Cgroup: r.group + "/frontend"},
	)
	port := freePort(t)
	policy := strings.Replace(frontendToServer, "8080", port, 1)
	r.setPolicies(policy)
	r.serve("", server, "127.0.0.1:"+port)
	url := "http://127.0.0.1:" + port + "/x"
	if got := r.get("", frontend, "GET", url); !strings.HasPrefix(got, "200 GET /x from 127.0.0.1:") {
		t.Errorf("frontend: %s", got)
	}
	if got := r.get("", other, "GET", url); got != "connection refused" {
		t.Errorf("a process that is no endpoint: %s", got)
	}
}

// A workload that goes leaves nothing; one that comes back is taken up again.
func TestComeAndGo(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w := Workload{Name: "default/server", Labels: labels(t, "app=server"), Netns: path + "-later"}
	r.setWorkloads(w)
	if s := r.a.Status().Endpoints[0]; s.State != Waiting {
		t.Errorf("before it comes: %+v", s)
	}
	w.Netns = path
	for range 2 {
		bindNamespace(t, path)
		r.setWorkloads(w)
		if s := r.a.Status().Endpoints[0]; s.State != Ready {
			t.Fatalf("when it is there: %+v", s)
		}
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the workload to be forgotten", func() bool {
			r.a.sweep()
			r.a.mu.Lock()
			defer r.a.mu.Unlock()
			return len(r.a.byID) == 0
		})
	}
}

// A workload that gets other labels is never out of force meanwhile, and its open
// connections are judged as what it is now.
func TestRelabel(t *testing.T) {
	r := newRig(t)
	server, frontend := namespace(t), namespace(t)
	join(t, server, frontend, "10.98.0.1", "10.98.0.2", 1)
	r.setPolicies(frontendToServer)
	w := []Workload{
		{Name: "default/server", Labels: labels(t, "app=server"), Netns: server},
		{Name: "default/frontend", Labels: labels(t, "app=other"), Netns: frontend},
	}
	r.setWorkloads(w...)
	id := r.a.Status().Endpoints[0].ID
	r.serve(server, r.cg, ":8080")
	for _, step := range []struct{ label, want string }{
		{"app=other", "connection refused"}, {"app=frontend", "200 GET /"}, {"app=other", "connection refused"},
	} {
		w[1].Labels = labels(t, step.label)
		r.setWorkloads(w...)
		if got := r.get(frontend, r.cg, "GET", "http://10.98.0.1:8080/"); !strings.HasPrefix(got, step.want) {
			t.Errorf("with %s: %s", step.label, got)
		}
	}
	if s := r.a.Status().Endpoints[0]; s.ID != id {
		t.Errorf("endpoint %d became %d", id, s.ID)
	}
}

// Connections of a workload that went do not outlive it: they would hold its
// namespace.
func TestConnectionsEnd(t *testing.T) {
	r := newRig(t)
	server, frontend := namespace(t), namespace(t)
	join(t, server, frontend, "10.98.0.1", "10.98.0.2", 1)
	r.setPolicies(frontendToServer)
	w := []Workload{
		{Name: "default/server", Labels: labels(t, "app=server"), Netns: server},
		{Name: "default/frontend", Labels: labels(t, "app=frontend"), Netns: frontend},
	}
	r.setWorkloads(w...)
	r.serve(server, r.cg, ":8080")
	cmd := r.command(frontend, r.cg, "hold", "10.98.0.1:8080", "1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	said := bufio.NewReader(out)
	if l, _ := said.ReadString('\n'); l != "held\n" {
		t.Fatalf("client: %s", l)
	}
	r.setWorkloads(w[1])
	if l, _ := said.ReadString('\n'); l != "ended\n" {
		t.Errorf("client: %s", l)
	}
}
