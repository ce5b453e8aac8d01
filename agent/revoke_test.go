//go:build linux

package agent

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// keep makes one request and stays connected: it says "held", "answer" for each line of
// standard input, which is another request, and "ended" when the connection ends. With
// upgrade the first request asks for another protocol.
func keep(addr string, upgrade bool) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		fmt.Println(err)
		return
	}
	request := "GET /x HTTP/1.1\r\nHost: " + addr + "\r\n"
	if upgrade {
		request += "Connection: Upgrade\r\nUpgrade: echo\r\n"
	}
	fmt.Fprint(c, request+"\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if !upgrade {
		r.Discard(int(resp.ContentLength))
	}
	fmt.Println("held", resp.StatusCode)
	go func() {
		in := bufio.NewReader(os.Stdin)
		for {
			if _, err := in.ReadString('\n'); err != nil {
				os.Exit(0)
			}
			fmt.Fprint(c, request+"\r\n")
		}
	}()
	for {
		if _, err := r.ReadByte(); err != nil {
			fmt.Println("ended")
			return
		}
		r.Discard(r.Buffered())
		fmt.Println("answer")
	}
}

// kept is a connection of a process of its own.
type kept struct {
	t   *testing.T
	out *bufio.Reader
	ask func()
}

func (r *rig) keep(ns, how, addr string) *kept {
	r.t.Helper()
	cmd := r.command(ns, r.cg, how, addr)
	in, err := cmd.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return &kept{r.t, bufio.NewReader(out), func() { fmt.Fprintln(in) }}
}

func (k *kept) want(line string) {
	k.t.Helper()
	if l, _ := k.out.ReadString('\n'); strings.TrimSpace(l) != line {
		k.t.Fatalf("client said %q, want %q", strings.TrimSpace(l), line)
	}
}

const (
	toServer = `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: server}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
`
	fromFrontend = `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: frontend}
spec:
  endpointSelector: {matchLabels: {app: frontend}}
  egress:
`
	onHTTP    = "\n    toPorts: [{ports: [{port: '8080', protocol: TCP}], rules: {http: [{method: GET, path: '/x'}]}}]\n"
	onPort    = "\n    toPorts: [{ports: [{port: '8080', protocol: TCP}]}]\n"
	otherPort = "\n    toPorts: [{ports: [{port: '8081', protocol: TCP}]}]\n"
)

// A policy that would not have let a connection be closes it at once; the others stay.
func TestRevocation(t *testing.T) {
	r := newRig(t)
	server, frontend, outside := namespace(t), namespace(t), namespace(t)
	join(t, server, frontend, "10.98.0.1", "10.98.0.2", 1)
	join(t, outside, frontend, "10.98.0.3", "10.98.0.2", 2)
	workloads := []Workload{
		{Name: "default/server", Labels: labels(t, "app=server"), Netns: server},
		{Name: "default/frontend", Labels: labels(t, "app=frontend"), Netns: frontend},
	}
	r.serve(server, r.cg, ":8080")
	r.serve(outside, r.cg, ":8080")
	const at, abroad = "10.98.0.1:8080", "10.98.0.3:8080"
	const frontends, others = "  - fromEndpoints: [{matchLabels: {app: frontend}}]", "  - fromEndpoints: [{matchLabels: {app: other}}]"
	const servers, network = "  - toEndpoints: [{matchLabels: {app: server}}]", "  - toCIDR: [10.98.0.0/24]"
	for _, tt := range []struct {
		name, how, addr, before, after string
		ends                           bool
		dir                            flow.Direction
	}{
		{"judged, other sender", "keep", at, toServer + frontends + onHTTP, toServer + others + onHTTP, true, flow.Ingress},
		{"judged, other port", "keep", at, toServer + frontends + onHTTP, toServer + frontends + otherPort, true, flow.Ingress},
		{"judged, more allowed", "keep", at, toServer + frontends + onHTTP, toServer + "  - {}\n" + frontends + onHTTP, false, 0},
		{"judged, wider", "keep", at, toServer + frontends + onHTTP, toServer + "  - fromEndpoints: [{}]" + onHTTP, false, 0},
		{"judged for the sender", "keep", at, fromFrontend + servers + onHTTP, fromFrontend + servers + otherPort, true, flow.Egress},
		{"judged for both", "keep", at, fromFrontend + servers + onHTTP + "---" + toServer + frontends + onHTTP,
			fromFrontend + servers + onHTTP + "---" + toServer + others + onHTTP, true, flow.Ingress},
		{"upgraded, not allowed now", "upgrade", at, toServer + frontends + onHTTP, toServer + frontends + strings.Replace(onHTTP, "/x", "/y", 1), true, flow.Ingress},
		{"upgraded, still allowed", "upgrade", at, toServer + frontends + onHTTP, toServer + frontends + strings.Replace(onHTTP, "/x", "/[xy]", 1), false, 0},
		{"direct, other sender", "keep", at, toServer + frontends + onPort, toServer + others + onPort, true, flow.Ingress},
		{"direct, other port", "keep", at, fromFrontend + servers + onPort, fromFrontend + servers + otherPort, true, flow.Egress},
		{"direct, wider", "keep", at, fromFrontend + servers + onPort, fromFrontend + servers + onPort + servers + otherPort, false, 0},
		{"direct, to be judged", "keep", at, fromFrontend + servers + onPort, fromFrontend + servers + onHTTP, true, flow.Egress},
		{"direct, under no policy before", "keep", at, "", toServer + others + onPort, true, flow.Ingress},
		{"to an address, judged", "keep", abroad, fromFrontend + network + onHTTP, fromFrontend + "  - toCIDRSet: [{cidr: 10.98.0.0/24, except: [10.98.0.3/32]}]" + onHTTP, true, flow.Egress},
		{"to an address, direct", "keep", abroad, fromFrontend + network + onPort, fromFrontend + "  - toCIDRSet: [{cidr: 10.98.0.0/24, except: [10.98.0.3/32]}]" + onPort, true, flow.Egress},
		{"to an address, other prefix", "keep", abroad, fromFrontend + network + onPort, fromFrontend + "  - toCIDR: [10.98.0.3/32]" + onPort, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.t = t
			r.setPolicies(tt.before)
			r.setWorkloads(workloads...)
			kept := r.keep(frontend, tt.how, tt.addr)
			if tt.how == "upgrade" {
				kept.want("held 101")
			} else {
				kept.want("held 200")
			}
			if tt.ends {
				r.forget()
				r.setPolicies(tt.after)
				kept.want("ended")
				waitFor(t, "the record of the end", func() bool {
					return r.has(func(rec flow.Record) bool {
						return rec.Verdict == flow.Dropped && rec.Direction == tt.dir && strings.HasPrefix(rec.Reason, "closed: the policy changed") &&
							rec.Source.Name == "default/frontend" && rec.Destination.Addr.String() == tt.addr
					})
				})
				return
			}
			for range 3 {
				r.setPolicies(tt.before)
				r.setPolicies(tt.after)
				kept.ask()
				kept.want("answer")
			}
			r.a.revokeDirect()
			kept.ask()
			kept.want("answer")
		})
	}
}

// Connections from before an endpoint was one are its as well.
func TestConnectionsFromBefore(t *testing.T) {
	r := newRig(t)
	server, frontend := namespace(t), namespace(t)
	join(t, server, frontend, "10.98.0.1", "10.98.0.2", 1)
	r.serve(server, r.cg, ":8080")
	for _, w := range []Workload{
		{Name: "default/server", Labels: labels(t, "app=server"), Netns: server},
		{Name: "default/frontend", Labels: labels(t, "app=frontend"), Netns: frontend},
	} {
		r.setWorkloads()
		kept := r.keep(frontend, "keep", "10.98.0.1:8080")
		kept.want("held 200")
		r.setPolicies(toServer + "  - fromEndpoints: [{}]" + onPort + "---" + fromFrontend + "  - toEndpoints: [{}]" + onPort)
		r.setWorkloads(w)
		kept.want("ended")
	}
}

func (r *rig) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = nil
}

func (r *rig) has(f func(flow.Record) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range r.records {
		if f(rec) {
			return true
		}
	}
	return false
}
