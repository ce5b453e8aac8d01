//go:build linux

package redirect

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/weir-proxy/weir/bpf"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/internal/testbed"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"golang.org/x/sys/unix"
)

// The endpoints of the ingress tests.
const (
	clientID, serverID             = 21, 22
	clientIdentity, serverIdentity = identity.ID(1021), identity.ID(1022)
)

func ingress(rows ...PolicyRow) Policy { return Policy{Ingress: Side{Enforced: true, Rows: rows}} }

func row(peer identity.ID, port uint16, a l7rules.Action) PolicyRow {
	return PolicyRow{Peer: peer, Proto: unix.IPPROTO_TCP, First: port, Last: port, Action: a}
}

// ingressFixture has a client and a server, each a namespace; only the server is
// under policy.
func ingressFixture(t *testing.T, p Policy) *fixture {
	t.Helper()
	testbed.NeedKernel(t)
	f := &fixture{t: t, cgroup: newCgroup(t), bpffs: testBPFFS(t)}
	f.a, f.b = newPair(t)
	f.start(Config{Ingress: true})
	f.addWith(EndpointConfig{ID: clientID, Identity: clientIdentity, Netns: f.a.path}, Policy{})
	f.addWith(EndpointConfig{ID: serverID, Identity: serverIdentity, Netns: f.b.path}, p)
	return f
}

func (f *fixture) addWith(cfg EndpointConfig, p Policy) *Endpoint {
	f.t.Helper()
	e, err := f.d.AddEndpoint(cfg, p)
	if err != nil {
		f.t.Fatal(err)
	}
	return e
}

// forward is a proxy that lets everything through, or what one identity sends, and
// remembers what it was told.
type forwarder struct {
	only   atomic.Uint32
	n      atomic.Int64
	active atomic.Int64
	seen   chan Redirected
}

func (f *fixture) forward() *forwarder {
	w := &forwarder{seen: make(chan Redirected, 100)}
	ctx := f.t.Context()
	go func() {
		for {
			r, err := f.d.Accept(nil)
			if err != nil {
				return
			}
			w.n.Add(1)
			w.seen <- *r
			w.active.Add(1)
			go func() {
				defer w.active.Add(-1)
				defer r.Conn.Close()
				if only := w.only.Load(); only != 0 && r.Peer != identity.ID(only) {
					return
				}
				up, err := r.Dial(ctx)
				if err != nil {
					fmt.Fprint(r.Conn, err)
					return
				}
				done := make(chan bool)
				go func() { io.Copy(up, r.Conn); up.CloseWrite(); close(done) }()
				io.Copy(r.Conn, up)
				r.Conn.CloseWrite()
				<-done
				up.Close()
			}()
		}
	}()
	return w
}

// serve starts a server child: it accepts one connection, says who the client is by
// accept() and by getpeername(), and greets it.
func (f *fixture) serve(cgroup string, ns namespace, script string) *proc {
	f.t.Helper()
	words := strings.Fields(script + " listen say up accept peername send close close")
	p := spawn(f.t, cgroup, ns, 0, append([]string{words[0], "reuseaddr"}, words[1:]...)...)
	p.until("up ")
	return p
}

// The receiver judges; the proxy knows the sender by its socket, and the
// application sees the true client.
func TestIngress(t *testing.T) {
	const b4, b6 = addrB4 + ":80", "[" + addrB6 + "]:80"
	f := ingressFixture(t, ingress(row(clientIdentity, 80, l7rules.ActionRedirect)))
	w := f.forward()
	for _, tt := range []struct {
		name, server, client, dst, from string
	}{
		{"v4", "tcp4 bind " + b4, "tcp4 connect " + b4, b4, addrA4 + ":"},
		{"v4 any", "tcp4 bind 0.0.0.0:80", "tcp4 connect " + b4, b4, addrA4 + ":"},
		{"v6", "tcp6 bind " + b6, "tcp6 connect " + b6, b6, "[" + addrA6 + "]:"},
		{"v6 any", "tcp6 v6only 1 bind [::]:80", "tcp6 connect " + b6, b6, "[" + addrA6 + "]:"},
		{"dual-stack, v4 client", "tcp6 bind [::]:80", "tcp4 connect " + b4, b4, "[::ffff:" + addrA4 + "]:"},
		{"dual-stack, v6 client", "tcp6 bind [::]:80", "tcp6 connect " + b6, b6, "[" + addrA6 + "]:"},
		{"mapped client", "tcp4 bind 0.0.0.0:80", "tcp6 connect [::ffff:" + addrB4 + "]:80", b4, addrA4 + ":"},
		{"MPTCP client", "tcp4 bind " + b4, "mptcp4 connect " + b4, b4, addrA4 + ":"},
		{"bound client", "tcp4 bind " + b4, "tcp4 bind " + addrA4 + ":5555 connect " + b4, b4, addrA4 + ":5555"},
		{"SO_REUSEPORT", "tcp4 reuseport bind " + b4, "tcp4 connect " + b4, b4, addrA4 + ":"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.t = t
			s := f.serve(f.cgroup, f.b, tt.server)
			got := f.run(strings.Fields(tt.client + " recv say me sockname")...)
			if !strings.HasPrefix(got, "got=hello me ") {
				t.Fatalf("client: %s", got)
			}
			said := strings.Fields(strings.TrimPrefix(s.wait(), "up "))
			if len(said) != 2 || said[0] != strings.Replace(said[1], "peer=", "client=", 1) || !strings.HasPrefix(said[0], "client="+tt.from) {
				t.Errorf("the server saw %v, want the client at %s", said, tt.from)
			}
			r := <-w.seen
			if r.Direction != flow.Ingress || r.Endpoint != serverID || r.Peer != clientIdentity || r.Original != mustAddrPort(tt.dst) || r.PID == 0 {
				t.Errorf("the proxy saw %+v", r)
			}
			port := got[strings.LastIndexByte(got, ':')+1:]
			if !strings.HasSuffix(said[0], ":"+port) {
				t.Errorf("the server saw %v, the client has port %s", said[0], port)
			}
		})
	}
	f.t = t
	f.nothingLeft()
}

// Where nobody listens, Linux refuses; a listener that comes is judged, one that
// went is forgotten.
func TestIngressOnlyWhereSomebodyListens(t *testing.T) {
	f := ingressFixture(t, ingress(row(clientIdentity, 80, l7rules.ActionRedirect)))
	w := f.forward()
	for range 3 {
		if got := f.run("tcp4", "connect", addrB4+":80"); got != "connect:ECONNREFUSED" {
			t.Error(got)
		}
		s := f.serve(f.cgroup, f.b, "tcp4 reuseaddr bind 0.0.0.0:80")
		if got := f.run("tcp4", "connect", addrB4+":80", "recv"); got != "got=hello" {
			t.Error(got)
		}
		s.wait()
	}
	if w.n.Load() != 3 {
		t.Errorf("the proxy saw %d connections", w.n.Load())
	}
}

// A listener that is older than the endpoint is judged too, and forgotten when it
// is gone.
func TestIngressOldListener(t *testing.T) {
	testbed.NeedKernel(t)
	f := &fixture{t: t, cgroup: newCgroup(t), bpffs: testBPFFS(t)}
	f.a, f.b = newPair(t)
	s := f.serve(f.cgroup, f.b, "tcp4 reuseaddr bind 0.0.0.0:80")
	old := f.serve(f.cgroup, f.b, "tcp6 reuseaddr bind [::]:81")
	f.start(Config{Ingress: true})
	f.addWith(EndpointConfig{ID: clientID, Identity: clientIdentity, Netns: f.a.path}, Policy{})
	f.addWith(EndpointConfig{ID: serverID, Identity: serverIdentity, Netns: f.b.path},
		ingress(row(clientIdentity, 80, l7rules.ActionRedirect), row(clientIdentity, 81, l7rules.ActionRedirect)))
	w := f.forward()
	for _, p := range []struct {
		*proc
		port string
	}{{s, ":80"}, {old, ":81"}} {
		if got := f.run("tcp4", "connect", addrB4+p.port, "recv"); got != "got=hello" {
			t.Error(got)
		}
		p.wait()
		if err := f.d.Resync(); err != nil {
			t.Fatal(err)
		}
		if got := f.run("tcp4", "connect", addrB4+p.port); got != "connect:ECONNREFUSED" {
			t.Errorf("after the listener went: %s", got)
		}
	}
	if w.n.Load() != 2 {
		t.Errorf("the proxy saw %d connections", w.n.Load())
	}
}

// Whom no rule allows is refused at once, with a record; whom the kernel can allow
// alone goes straight.
func TestIngressInTheKernel(t *testing.T) {
	f := ingressFixture(t, ingress(row(clientIdentity, 81, l7rules.ActionAllow)))
	w := f.forward()
	s := f.serve(f.cgroup, f.b, "tcp4 bind 0.0.0.0:80")
	if got := f.run("tcp4", "connect", addrB4+":80"); got != "connect:ECONNREFUSED" {
		t.Error(got)
	}
	f.event() // of the sender's side, which is open
	e := f.event()
	want := Event{Direction: flow.Ingress, Endpoint: serverID, Peer: clientIdentity, Proto: unix.IPPROTO_TCP, Src: e.Src,
		Dst: mustAddrPort(addrB4 + ":80"), Reason: ReasonPolicy, PID: e.PID, Comm: e.Comm}
	if e != want || e.Src.Addr() != netip.MustParseAddr(addrA4) || e.PID == 0 {
		t.Errorf("record %+v", e)
	}
	s.cmd.Process.Kill()
	s = f.serve(f.cgroup, f.b, "tcp4 bind 0.0.0.0:81")
	if got := f.run("tcp4", "connect", addrB4+":81", "recv"); got != "got=hello" {
		t.Error(got)
	}
	if got := s.wait(); !strings.Contains(got, "client="+addrA4) {
		t.Error(got)
	}
	f.event()
	if e := f.event(); e.Direction != flow.Ingress || !e.Allowed || e.Peer != clientIdentity {
		t.Errorf("record %+v", e)
	}
	if w.n.Load() != 0 {
		t.Error("the proxy saw a connection")
	}
}

// A sender that is no endpoint is the world, whatever address it shows; an endpoint
// reaches itself.
func TestIngressStrangers(t *testing.T) {
	testbed.NeedKernel(t)
	f := &fixture{t: t, cgroup: newCgroup(t), bpffs: testBPFFS(t)}
	f.a, f.b = newPair(t)
	f.start(Config{Ingress: true})
	f.addWith(EndpointConfig{ID: serverID, Identity: serverIdentity, Netns: f.b.path},
		ingress(row(clientIdentity, 80, l7rules.ActionAllow), row(identity.World, 81, l7rules.ActionAllow)))
	// An address like an endpoint's, declared for destinations.
	if err := f.d.SetAddresses([]PeerPrefix{{netip.MustParsePrefix(addrA4 + "/32"), clientIdentity}}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, port string
		ns         namespace
		dst        string
		want       string
	}{
		{"stranger to the endpoint's peer port", ":80", f.a, addrB4, "connect:ECONNREFUSED"},
		{"stranger as the world", ":81", f.a, addrB4, "got=hello"},
		{"itself by its address", ":80", f.b, addrB4, "got=hello"},
		{"itself by loopback", ":80", f.b, "127.0.0.1", "got=hello"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.t = t
			s := f.serve(f.cgroup, f.b, "tcp4 bind 0.0.0.0"+tt.port)
			if got := runIn(t, f.cgroup, tt.ns, 0, "tcp4", "connect", tt.dst+tt.port, "recv"); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			s.cmd.Process.Kill()
			s.wait()
		})
	}
}

// Services of one namespace that talk over the loopback are told apart.
func TestIngressSharedNamespace(t *testing.T) {
	testbed.NeedKernel(t)
	f := &fixture{t: t, cgroup: newCgroup(t), bpffs: testBPFFS(t)}
	f.a, f.b = newPair(t)
	client, server, other := newCgroupIn(t, f.cgroup), newCgroupIn(t, f.cgroup), newCgroupIn(t, f.cgroup)
	f.start(Config{Ingress: true})
	f.addWith(EndpointConfig{ID: clientID, Identity: clientIdentity, Netns: f.a.path, Cgroup: inode(t, client), CgroupDir: client}, Policy{})
	f.addWith(EndpointConfig{ID: serverID, Identity: serverIdentity, Netns: f.a.path, Cgroup: inode(t, server), CgroupDir: server},
		ingress(row(clientIdentity, 80, l7rules.ActionRedirect), row(identity.Host, 81, l7rules.ActionAllow)))
	w := f.forward()
	for _, tt := range []struct {
		name, from, to, want string
		proxied              bool
	}{
		{"endpoint by v4 loopback", client, "tcp4 127.0.0.1:80", "got=hello", true},
		{"endpoint by v6 loopback", client, "tcp6 [::1]:80", "got=hello", true},
		{"endpoint by mapped loopback", client, "tcp6 [::ffff:127.0.0.1]:80", "got=hello", true},
		{"endpoint by address", client, "tcp4 " + addrA4 + ":80", "got=hello", true},
		{"endpoint to a port for the host only", client, "tcp4 127.0.0.1:81", "connect:ECONNREFUSED", false},
		{"host to a port for the endpoint only", other, "tcp4 127.0.0.1:80", "connect:ECONNREFUSED", false},
		{"host", other, "tcp4 127.0.0.1:81", "got=hello", false},
		{"itself", server, "tcp4 127.0.0.1:82", "got=hello", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.t = t
			kind, dst, _ := strings.Cut(tt.to, " ")
			s := f.serve(server, f.a, "tcp6 bind [::]"+dst[strings.LastIndexByte(dst, ':'):])
			before := w.n.Load()
			if got := runIn(t, tt.from, f.a, 0, kind, "connect", dst, "recv"); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if (w.n.Load() != before) != tt.proxied {
				t.Errorf("through the proxy: %v", !tt.proxied)
			}
			s.cmd.Process.Kill()
			s.wait()
		})
	}
	// A more specific listener of somebody else wins, as in Linux, and is not judged.
	s := f.serve(server, f.a, "tcp4 reuseaddr reuseport bind 0.0.0.0:83")
	o := f.serve(other, f.a, "tcp4 reuseaddr reuseport bind 127.0.0.1:83")
	if got := runIn(t, other, f.a, 0, "tcp4", "connect", "127.0.0.1:83", "recv"); got != "got=hello" {
		t.Error(got)
	}
	if got := o.wait(); !strings.Contains(got, "client=127.0.0.1") {
		t.Error(got)
	}
	s.cmd.Process.Kill()
}

// Both sides judge: the sender's policy sends it to the proxy, and the proxy's own
// connection is the sender's for the receiver.
func TestBothSides(t *testing.T) {
	testbed.NeedKernel(t)
	f := &fixture{t: t, cgroup: newCgroup(t), bpffs: testBPFFS(t)}
	f.a, f.b = newPair(t)
	f.start(Config{Ingress: true})
	f.addWith(EndpointConfig{ID: clientID, Identity: clientIdentity, Netns: f.a.path},
		Policy{Egress: Side{Enforced: true, Rows: []PolicyRow{row(serverIdentity, 80, l7rules.ActionRedirect)}}})
	f.addWith(EndpointConfig{ID: serverID, Identity: serverIdentity, Netns: f.b.path}, ingress(row(clientIdentity, 80, l7rules.ActionRedirect)))
	if err := f.d.SetAddresses([]PeerPrefix{{netip.MustParsePrefix(addrB4 + "/32"), serverIdentity}}); err != nil {
		t.Fatal(err)
	}
	w := f.forward()
	s := f.serve(f.cgroup, f.b, "tcp4 bind 0.0.0.0:80")
	if got := f.run("tcp4", "connect", addrB4+":80", "recv"); got != "got=hello" {
		t.Error(got)
	}
	if got := s.wait(); !strings.Contains(got, "client="+addrA4) {
		t.Error(got)
	}
	out, in := <-w.seen, <-w.seen
	if out.Direction != flow.Egress || out.Endpoint != clientID || out.Peer != serverIdentity {
		t.Errorf("sender's side: %+v", out)
	}
	if in.Direction != flow.Ingress || in.Endpoint != serverID || in.Peer != clientIdentity {
		t.Errorf("receiver's side: %+v", in)
	}
	f.nothingLeft()
}

// A SYN that sk_lookup does not know the listener of is dropped, not let through.
func TestGuard(t *testing.T) {
	f := ingressFixture(t, ingress(row(clientIdentity, 80, l7rules.ActionRedirect)))
	f.forward()
	s := f.serve(f.cgroup, f.b, "tcp4 bind 0.0.0.0:80")
	var k bpf.WeirLportKey
	var v bpf.WeirLport
	for it := f.d.objs.Listening.Iterate(); it.Next(&k, &v); {
		if k.Port == 80 {
			v.Refs = 0
			if err := f.d.objs.Listening.Put(k, v); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := f.run("tcp4", "quick", "connect", addrB4+":80"); !strings.HasPrefix(got, "connect:E") {
		t.Error(got)
	}
	s.cmd.Process.Kill()
	if got := s.wait(); strings.Contains(got, "client=") {
		t.Errorf("the server was reached: %s", got)
	}
}

// Datagrams are judged where they arrive; answers to what was sent pass.
func TestIngressUDP(t *testing.T) {
	udp := func(peer identity.ID, port uint16) PolicyRow {
		return PolicyRow{Peer: peer, Proto: unix.IPPROTO_UDP, First: port, Last: port, Action: l7rules.ActionAllow}
	}
	f := ingressFixture(t, ingress(udp(identity.World, 53)))
	for _, tt := range []struct{ port, want string }{{"53", "ok"}, {"54", "dropped"}} {
		s := spawn(t, f.cgroup, f.b, 0, "udp4", "quick", "bind", addrB4+":"+tt.port, "say", "up", "recvfrom")
		s.until("up ")
		f.run("udp4", "sendto", addrB4+":"+tt.port)
		got := s.wait()
		if (tt.want == "ok") != strings.Contains(got, "from="+addrA4) {
			t.Errorf("port %s: %s", tt.port, got)
		}
	}
	// The server asks the client, unconnected and connected.
	for _, ask := range []string{"udp4 sendto 10.99.0.1:1053 recvfrom", "udp4 connect 10.99.0.1:1053 send recv"} {
		c := spawn(t, f.cgroup, f.a, 0, "udp4", "bind", addrA4+":1053", "say", "up", "echo")
		c.until("up ")
		if got := runIn(t, f.cgroup, f.b, 0, strings.Fields(ask)...); !strings.Contains(got, "from=10.99.0.1:1053") && got != "got=hello" {
			t.Errorf("%s: %s", ask, got)
		}
		c.wait()
	}
}

// A source route does not carry what was judged for one destination to another.
func TestSourceRoute(t *testing.T) {
	f := ingressFixture(t, Policy{})
	seen := sniff(t, f.b)
	if got := f.run("tcp4", "quick", "sourceroute", addrB4, "connect", "10.99.0.3:90"); !strings.HasPrefix(got, "connect:") {
		t.Errorf("connect with a source route: %s", got)
	}
	if seen(addrB4) {
		t.Error("a packet with a source route left")
	}
}

// Endpoints that came and went leave no entry in any map.
func TestNoEntryLeft(t *testing.T) {
	testbed.NeedKernel(t)
	f := &fixture{t: t, cgroup: newCgroup(t), bpffs: testBPFFS(t)}
	f.a, f.b = newPair(t)
	f.start(Config{Ingress: true})
	w := f.forward()
	maps := map[string]*ebpf.Map{
		"by_cgroup": f.d.objs.ByCgroup, "by_netns": f.d.objs.ByNetns, "endpoints": f.d.objs.Endpoints, "flows": f.d.objs.Flows,
		"inherited": f.d.objs.Inherited, "listeners": f.d.objs.Listeners, "listening": f.d.objs.Listening, "peers": f.d.objs.Peers,
		"policy": f.d.objs.Policy,
	}
	keys := func(m *ebpf.Map) int {
		n := 0
		var prev any
		for k := make([]byte, m.KeySize()); m.NextKey(prev, &k) == nil; n++ {
			prev = slices.Clone(k)
		}
		return n
	}
	server := newCgroupIn(t, f.cgroup)
	for range 5 {
		list := []*Endpoint{
			f.addWith(EndpointConfig{ID: clientID, Identity: clientIdentity, Netns: f.a.path}, Policy{Egress: Side{Enforced: true, Rows: []PolicyRow{toWorld}}}),
			f.addWith(EndpointConfig{ID: serverID, Identity: serverIdentity, Netns: f.b.path, Cgroup: inode(t, server), CgroupDir: server},
				ingress(row(clientIdentity, 80, l7rules.ActionRedirect))),
		}
		s := f.serve(server, f.b, "tcp4 bind "+addrB4+":80")
		if got := f.run("tcp4", "connect", addrB4+":80", "recv"); got != "got=hello" {
			t.Fatal(got)
		}
		s.wait()
		<-w.seen
		<-w.seen
		if err := f.d.Resync(); err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if err := e.Remove(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, m := range maps {
		waitFor(t, name+" to be empty", func() bool { return keys(m) == 0 })
	}
	if len(f.d.places) != 0 || len(f.d.endpoints) != 0 || len(f.d.inherited) != 0 {
		t.Errorf("places %v, endpoints %v, inherited %v", f.d.places, f.d.endpoints, f.d.inherited)
	}
	f.d.owners.Range(func(k, v any) bool {
		t.Errorf("address %v still leads to %v", k, v)
		return true
	})
}

// A policy that changes judges the next connection.
func TestSetPolicy(t *testing.T) {
	f := ingressFixture(t, ingress())
	f.forward()
	f.d.mu.Lock()
	e := f.d.endpoints[serverID]
	f.d.mu.Unlock()
	for i, p := range []struct {
		Policy
		want string
	}{
		{ingress(), "connect:ECONNREFUSED"},
		{ingress(row(clientIdentity, 80, l7rules.ActionAllow)), "got=hello"},
		{ingress(PolicyRow{Peer: clientIdentity, Proto: unix.IPPROTO_TCP, First: 0, Last: 65535, Action: l7rules.ActionRedirect}), "got=hello"},
		{ingress(row(clientIdentity, 81, l7rules.ActionAllow)), "connect:ECONNREFUSED"},
		{Policy{}, "got=hello"},
		{ingress(), "connect:ECONNREFUSED"},
	} {
		if err := e.SetPolicy(p.Policy); err != nil {
			t.Fatal(err)
		}
		s := f.serve(f.cgroup, f.b, "tcp4 reuseaddr bind 0.0.0.0:80")
		if got := f.run("tcp4", "connect", addrB4+":80", "recv"); got != p.want {
			t.Errorf("policy %d: %s, want %s", i, got, p.want)
		}
		s.cmd.Process.Kill()
		s.wait()
	}
	if err := e.SetPolicy(Policy{}); err != nil {
		t.Fatal(err)
	}
	if n := size(f.d.objs.Policy); n != 0 {
		t.Errorf("%d rows left", n)
	}
}
