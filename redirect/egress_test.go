//go:build linux

package redirect

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/internal/testbed"
	"github.com/weir-proxy/weir/l7rules"
	"golang.org/x/sys/unix"
)

// Every way to connect is judged under the right origin, and getpeername()
// shows the address that was asked for.
func TestConnectFamilies(t *testing.T) {
	f := newFixture(t, toWorld)
	f.answerOrigin()
	const (
		b4 = addrB4 + ":80"
		b6 = "[" + addrB6 + "]:80"
		bm = "[::ffff:" + addrB4 + "]:80"
	)
	tests := []struct {
		name   string
		script string
		origin string // as the proxy was told
		peer   string // as getpeername() says
	}{
		{"v4", "tcp4 connect " + b4, b4, b4},
		{"v4 bound to its own address", "tcp4 bind 10.99.0.1:0 connect " + b4, b4, b4},
		{"v4 IP_BIND_ADDRESS_NO_PORT", "tcp4 noport bind 10.99.0.1:0 connect " + b4, b4, b4},
		{"v4 SO_BINDTODEVICE", "tcp4 dev va connect " + b4, b4, b4},
		{"v4 MPTCP", "mptcp4 connect " + b4, b4, b4},
		{"v4 non-blocking", "tcp4 nbconnect " + b4, b4, b4},
		{"v4 io_uring", "tcp4 uringconnect " + b4, b4, b4},
		{"v4 MSG_FASTOPEN", "tcp4 fastopen " + b4, b4, b4},
		{"v4 TCP_FASTOPEN_CONNECT", "tcp4 fastopen_connect connect " + b4, b4, b4},
		{"v4 reconnect after AF_UNSPEC", "tcp4 connect 10.99.0.2:81 unconnect connect " + b4, b4, b4},
		{"v6", "tcp6 connect " + b6, b6, b6},
		{"v6 V6ONLY", "tcp6 v6only 1 connect " + b6, b6, b6},
		{"v6 bound to its own address", "tcp6 bind [fd99::1]:0 connect " + b6, b6, b6},
		{"v6 SO_BINDTODEVICE", "tcp6 dev va connect " + b6, b6, b6},
		{"v6 MPTCP", "mptcp6 connect " + b6, b6, b6},
		{"v6 io_uring", "tcp6 uringconnect " + b6, b6, b6},
		{"v6 MSG_FASTOPEN", "tcp6 fastopen " + b6, b6, b6},
		{"mapped", "tcp6 connect " + bm, b4, bm},
		{"mapped bound to ::ffff:own", "tcp6 bind [::ffff:10.99.0.1]:0 connect " + bm, b4, bm},
		{"mapped bound to ::", "tcp6 bind [::]:0 connect " + bm, b4, bm},
		{"mapped SO_BINDTODEVICE", "tcp6 dev va connect " + bm, b4, bm},
		{"mapped MPTCP", "mptcp6 connect " + bm, b4, bm},
		{"v6 to an address without a route", "tcp6 connect [2001:db8::1]:443", "[2001:db8::1]:443", "[2001:db8::1]:443"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f.t = t
			got := f.run(strings.Fields(tt.script + " peername send recv")...)
			// MSG_FASTOPEN and TCP_FASTOPEN_CONNECT send with the SYN: the peer's name is the same.
			want := fmt.Sprintf("peer=%s got=%s", tt.peer, tt.origin)
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
	t.Run("mapped on a V6ONLY socket is refused by Linux itself", func(t *testing.T) {
		f.t = t
		if got := f.run("tcp6", "v6only", "1", "connect", bm); got != "connect:ENETUNREACH" {
			t.Error(got)
		}
	})
	f.t = t
	f.nothingLeft()
}

// nothingLeft waits until no flow is left in the map.
func (f *fixture) nothingLeft() {
	f.t.Helper()
	waitFor(f.t, "flows to be deleted", func() bool { return size(f.d.objs.Flows) == 0 })
}

func size(m *ebpf.Map) int {
	k, v := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	n := 0
	for it := m.Iterate(); it.Next(&k, &v); {
		n++
	}
	return n
}

// Clients that are gone before accept() returns are still known.
func TestShortConnections(t *testing.T) {
	f := newFixture(t, toWorld)
	want := map[netip.AddrPort]bool{
		mustAddrPort(addrB4 + ":80"):        true,
		mustAddrPort("[" + addrB6 + "]:80"): true,
	}
	accepted := make(chan int)
	const threads, each = 8, 500
	go func() {
		n := 0
		for n < threads*each {
			r, err := f.d.Accept(nil)
			if err != nil {
				break
			}
			if want[r.Original] && r.Endpoint == testEndpoint && r.Peer == identity.World && r.PID != 0 && r.Comm != "" {
				n++
			}
			r.Conn.Close()
		}
		accepted <- n
	}()
	got := f.run("storm", fmt.Sprint(threads), fmt.Sprint(each), addrB4+":80,["+addrB6+"]:80,[::ffff:"+addrB4+"]:80")
	if got != "failed=0" {
		t.Fatal(got)
	}
	if n := <-accepted; n != threads*each {
		t.Errorf("%d of %d connections carried their origin", n, threads*each)
	}
	f.nothingLeft()
}

// A port reused out of TIME_WAIT carries the new connection's origin.
func TestPortReuse(t *testing.T) {
	f := newFixture(t, toWorld)
	f.answerOrigin()
	got := f.run(strings.Fields("tcp4 reuseaddr bind 10.99.0.1:40000 connect 10.99.0.2:80 send recv eof close " +
		"tcp4 reuseaddr bind 10.99.0.1:40000 connect 10.99.0.2:81 send recv eof close " +
		"tcp4 reuseaddr bind 10.99.0.1:40000 connect 10.99.0.2:82 abort send recv eof close " +
		"tcp4 reuseaddr bind 10.99.0.1:40000 connect 10.99.0.2:83 send recv close")...)
	if got != "got=10.99.0.2:80 got=10.99.0.2:81 got=10.99.0.2:82 got=10.99.0.2:83" {
		t.Error(got)
	}
	f.nothingLeft()
}

// What no row allows is refused at once, with one record, in every family.
func TestDenied(t *testing.T) {
	f := newFixture(t, PolicyRow{Peer: identity.World, Proto: unix.IPPROTO_TCP, First: 80, Last: 80, Action: l7rules.ActionRedirect})
	f.answerOrigin()
	tests := []struct {
		script string
		want   string
		proto  uint8
		dst    string
		reason Reason
	}{
		{"tcp4 connect 10.99.0.2:81", "connect:ECONNREFUSED", unix.IPPROTO_TCP, "10.99.0.2:81", ReasonPolicy},
		{"tcp4 nbconnect 10.99.0.2:81", "nbconnect:ECONNREFUSED", unix.IPPROTO_TCP, "10.99.0.2:81", ReasonPolicy},
		{"tcp4 uringconnect 10.99.0.2:81", "uringconnect:ECONNREFUSED", unix.IPPROTO_TCP, "10.99.0.2:81", ReasonPolicy},
		{"tcp4 fastopen 10.99.0.2:81", "fastopen:ECONNREFUSED", unix.IPPROTO_TCP, "10.99.0.2:81", ReasonPolicy},
		{"mptcp4 connect 10.99.0.2:81", "connect:ECONNREFUSED", unix.IPPROTO_TCP, "10.99.0.2:81", ReasonPolicy},
		{"tcp6 connect [fd99::2]:81", "connect:ECONNREFUSED", unix.IPPROTO_TCP, "[fd99::2]:81", ReasonPolicy},
		{"tcp6 connect [::ffff:10.99.0.2]:81", "connect:ECONNREFUSED", unix.IPPROTO_TCP, "10.99.0.2:81", ReasonPolicy},
		{"tcp6 connect [fe80::1]:80", "connect:ECONNREFUSED", unix.IPPROTO_TCP, "[fe80::1]:80", ReasonLinkLocal},
		{"udp4 connect 10.99.0.2:53", "connect:ECONNREFUSED", unix.IPPROTO_UDP, "10.99.0.2:53", ReasonPolicy},
		{"udp4 sendto 10.99.0.2:53", "sendto:ECONNREFUSED", unix.IPPROTO_UDP, "10.99.0.2:53", ReasonPolicy},
		{"udp6 sendto [fd99::2]:53", "sendto:ECONNREFUSED", unix.IPPROTO_UDP, "[fd99::2]:53", ReasonPolicy},
		{"udp6 sendto [::ffff:10.99.0.2]:53", "sendto:ECONNREFUSED", unix.IPPROTO_UDP, "10.99.0.2:53", ReasonPolicy},
		{"udp6 sendto4 10.99.0.2:53", "sendto4:ECONNREFUSED", unix.IPPROTO_UDP, "10.99.0.2:53", ReasonPolicy},
		{"udp6 connect4 10.99.0.2:53", "connect4:ECONNREFUSED", unix.IPPROTO_UDP, "10.99.0.2:53", ReasonPolicy},
		{"ping4", "ping4:EPERM", unix.IPPROTO_ICMP, "0.0.0.0:2", ReasonSocket},
		{"raw4", "raw4:EPERM", unix.IPPROTO_RAW, "0.0.0.0:3", ReasonSocket},
		{"raw6", "raw6:EPERM", unix.IPPROTO_RAW, "[::]:3", ReasonSocket},
		{"rawtcp4", "rawtcp4:EPERM", unix.IPPROTO_TCP, "0.0.0.0:3", ReasonSocket},
		{"udplite4", "udplite4:EPERM", unix.IPPROTO_UDPLITE, "0.0.0.0:2", ReasonSocket},
		// After a connection that was allowed, on the same socket: nothing of it is left to use.
		{"tcp4 connect 10.99.0.2:80 unconnect connect 10.99.0.2:81", "connect:ECONNREFUSED", unix.IPPROTO_TCP, "10.99.0.2:81", ReasonPolicy},
		// The redirect port itself is nobody's.
		{"tcp4 connect 10.99.0.2:1", "connect:ECONNREFUSED", unix.IPPROTO_TCP, "10.99.0.2:1", ReasonPolicy},
	}
	for _, tt := range tests {
		t.Run(tt.script, func(t *testing.T) {
			f.t = t
			if tt.script == "ping4" {
				inside(t, f.a, func() error { return writeSysctl("net/ipv4/ping_group_range", "0 2147483647") })
			}
			if got := f.run(strings.Fields(tt.script)...); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			e := f.event()
			want := Event{Endpoint: testEndpoint, Peer: e.Peer, Proto: tt.proto, Dst: mustAddrPort(tt.dst), Reason: tt.reason, PID: e.PID, Comm: e.Comm}
			if e != want || e.PID == 0 || e.Comm == "" {
				t.Errorf("record %+v, want %+v", e, want)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.events) != 0 {
				t.Errorf("more than one record: %+v", f.events)
			}
		})
	}
}

// A datagram socket that sends to one place a thousand times is one decision.
func TestOneRecordPerDestination(t *testing.T) {
	f := newFixture(t)
	f.run(strings.Fields("udp4 sendto 10.99.0.2:53 sendto 10.99.0.2:53 sendto 10.99.0.2:53 sendto 10.99.0.2:54")...)
	for _, want := range []string{"10.99.0.2:53", "10.99.0.2:54"} {
		if e := f.event(); e.Dst != mustAddrPort(want) {
			t.Errorf("record of %v, want %s", e.Dst, want)
		}
	}
}

// What the kernel allows goes straight to its destination, with a record.
func TestAllowedDirect(t *testing.T) {
	f := newFixture(t, PolicyRow{Peer: identity.World, Proto: unix.IPPROTO_TCP, First: 80, Last: 90, Action: l7rules.ActionAllow})
	got := serveOnce(t, f.b, "tcp4", addrB4+":85", func() string {
		return f.run("tcp4", "connect", addrB4+":85", "send", "recv")
	})
	if got != "got=hi "+addrA4 && got != "got=hi "+addrA4+" hello" {
		t.Error(got)
	}
	if e := f.event(); !e.Allowed || e.Dst != mustAddrPort(addrB4+":85") || e.Reason != ReasonPolicy {
		t.Errorf("record %+v", e)
	}
}

// serveOnce answers one connection in a namespace with the client's address.
func serveOnce(t *testing.T, ns namespace, network, addr string, during func() string) string {
	t.Helper()
	var ln net.Listener
	inside(t, ns, func() (err error) {
		ln, err = net.Listen(network, addr)
		return err
	})
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.Read(make([]byte, 5))
		fmt.Fprintf(c, "hi %s", c.RemoteAddr().(*net.TCPAddr).IP)
	}()
	return during()
}

// The proxy's upstream socket is exempt, leaves from the client's namespace and
// from the address that the client had bound.
func TestDial(t *testing.T) {
	f := newFixture(t, toWorld)
	inside(t, f.a, func() error { return addAddr("va", "10.99.0.7/24") })
	go func() {
		for {
			r, err := f.d.Accept(nil)
			if err != nil {
				return
			}
			up, err := r.Dial(t.Context())
			if err != nil {
				fmt.Fprint(r.Conn, err)
				r.Conn.Close()
				continue
			}
			go func() { io.Copy(up, r.Conn); up.CloseWrite() }()
			go func() { io.Copy(r.Conn, up); r.Conn.Close(); up.Close() }()
		}
	}()
	for _, tt := range []struct{ addr, script, want string }{
		{addrB4, "tcp4 connect 10.99.0.2:80", addrA4},
		{addrB4, "tcp4 bind 10.99.0.7:0 connect 10.99.0.2:80", "10.99.0.7"},
		{addrB4, "tcp4 dev va connect 10.99.0.2:80", addrA4},
		{addrB4, "tcp6 connect [::ffff:10.99.0.2]:80", addrA4},
		{addrB4, "tcp6 bind [::ffff:10.99.0.7]:0 connect [::ffff:10.99.0.2]:80", "10.99.0.7"},
		{addrB6, "tcp6 connect [fd99::2]:80", addrA6},
	} {
		t.Run(tt.script, func(t *testing.T) {
			f.t = t
			got := serveOnce(t, f.b, "tcp", net.JoinHostPort(tt.addr, "80"), func() string {
				return f.run(strings.Fields(tt.script + " send recv")...)
			})
			if got != "got=hi "+tt.want {
				t.Errorf("%s, want the server to see %s", got, tt.want)
			}
		})
	}
}

// An endpoint that is a namespace always reaches itself, without the proxy.
func TestNamespaceReachesItself(t *testing.T) {
	f := newFixture(t)
	for _, addr := range []string{"127.0.0.1:8000", addrA4 + ":8000"} {
		got := serveOnce(t, f.a, "tcp4", addr, func() string { return f.run("tcp4", "connect", addr, "send", "recv") })
		if !strings.HasPrefix(got, "got=hi ") {
			t.Errorf("%s: %s", addr, got)
		}
	}
	// An address that is added later is its own at once, or as soon as Linux says so.
	inside(t, f.a, func() error { return addAddr("va", "10.99.0.9/24") })
	waitFor(t, "new address to be known", func() bool {
		var v uint32
		return f.d.objs.Peers.Lookup(peerKey(testEndpoint|1<<31, netip.MustParsePrefix("10.99.0.9/32")), &v) == nil
	})
	got := serveOnce(t, f.a, "tcp4", "10.99.0.9:8000", func() string { return f.run("tcp4", "connect", "10.99.0.9:8000", "send", "recv") })
	if !strings.HasPrefix(got, "got=hi ") {
		t.Error(got)
	}
}

// Nobody gets into the proxy without a flow: not from the network, not from a
// neighbour in the namespace.
func TestNoFlowNoEntry(t *testing.T) {
	f := newFixture(t, toWorld)
	n := f.answerOrigin()
	port := f.place().ln.Addr().(*net.TCPAddr).Port
	outside := newCgroup(t)
	for _, ns := range []namespace{f.a, f.b} {
		for _, dst := range []string{fmt.Sprintf("10.99.0.1:%d", port), "10.99.0.1:1", fmt.Sprintf("[fd99::1]:%d", port), "[fd99::1]:1"} {
			kind := "tcp4"
			if dst[0] == '[' {
				kind = "tcp6"
			}
			// In a cgroup without our programs: nothing redirects these.
			if got := runIn(t, outside, ns, 0, kind, "connect", dst, "send", "recv"); got != "connect:ECONNREFUSED" {
				t.Errorf("%s: %s", dst, got)
			}
		}
	}
	if n.Load() != 0 {
		t.Errorf("the proxy accepted %d connections", n.Load())
	}
}

func (f *fixture) place() *place {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.d.places[f.a.cookie]
}

// A full flow map refuses the connection; nothing passes unchecked.
func TestFlowMapFull(t *testing.T) {
	testbed.NeedKernel(t)
	f := newFixture(t, toWorld)
	n := f.answerOrigin()
	// Fill the map with flows of a namespace that does not exist.
	fillFlows(t, f.d.objs.Flows)
	if got := f.run("tcp4", "connect", addrB4+":80"); got != "connect:ECONNREFUSED" {
		t.Error(got)
	}
	if n.Load() != 0 {
		t.Error("a connection passed")
	}
}
