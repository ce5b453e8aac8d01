//go:build linux

package redirect

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/weir-proxy/weir/bpf"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/internal/testbed/netns"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"golang.org/x/sys/unix"
)

// The third namespace of the tests below shows the client's address.
const (
	thirdID       = 23
	thirdIdentity = identity.ID(1023)
	tuplePort     = 5555
)

// impostorFixture is ingressFixture with a third namespace that has the client's address as well
// and is joined to the server, which answers that address there.
func impostorFixture(t *testing.T, p Policy) (f *fixture, c namespace) {
	t.Helper()
	f = ingressFixture(t, p)
	c = newNamespace(t)
	wire(t,
		netns.End{Path: c.path, Device: "vc", Addrs: prefixes(addrA4 + "/32"), Routes: prefixes(addrB4 + "/32")},
		netns.End{Path: f.b.path, Device: "vbc"})
	answerBy(t, f.b, "vbc")
	return f, c
}

func hostNet(addr string) *net.IPNet {
	return &net.IPNet{IP: net.ParseIP(addr).To4(), Mask: net.CIDRMask(32, 32)}
}

// answerBy has the server reach the client's address by a device.
func answerBy(t *testing.T, server namespace, dev string) {
	t.Helper()
	inside(t, server, func() error {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: hostNet(addrA4), Scope: netlink.SCOPE_LINK})
	})
}

// mute has what a namespace sends to the server go astray, so that its SYNs stay
// unanswered; unmute takes that back.
func mute(t *testing.T, ns namespace, dev string) (unmute func()) {
	t.Helper()
	var index int
	inside(t, ns, func() error {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		index = l.Attrs().Index
		astray, _ := net.ParseMAC("02:00:00:00:00:01")
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: index, IP: net.ParseIP(addrB4), HardwareAddr: astray, State: netlink.NUD_PERMANENT})
	})
	return func() {
		t.Helper()
		inside(t, ns, func() error {
			return netlink.NeighDel(&netlink.Neigh{LinkIndex: index, IP: net.ParseIP(addrB4)})
		})
	}
}

// claims is how many sockets claim the tests' tuple, by the entry without a cookie.
func (f *fixture) claims() int {
	f.t.Helper()
	k := bpf.WeirFlowKey{Lport: tuplePort, Rport: 80}
	k.Local.Ip, k.Remote.Ip = words(netip.MustParseAddr(addrA4)), words(netip.MustParseAddr(addrB4))
	var v bpf.WeirFlow
	if f.d.objs.Flows.Lookup(k, &v) != nil {
		return 0
	}
	return int(v.Claims)
}

// connecting starts a client with the tests' tuple that gets no answer yet. It ends by
// RST: the port is free at once.
func (f *fixture) connecting(ns namespace, claims int) *proc {
	f.t.Helper()
	p := spawn(f.t, f.cgroup, ns, 0, "tcp4", "bind", fmt.Sprint(addrA4, ":", tuplePort), "connect", addrB4+":80", "recv", "abort")
	waitFor(f.t, "the tuple to be claimed", func() bool { return f.claims() == claims })
	return p
}

// tuple is a client with the tests' tuple.
func (f *fixture) tuple(ns namespace, words ...string) string {
	f.t.Helper()
	script := append([]string{"tcp4"}, words...)
	return runIn(f.t, f.cgroup, ns, 0, append(script, "bind", fmt.Sprint(addrA4, ":", tuplePort), "connect", addrB4+":80", "recv", "abort")...)
}

// arrivals are the decisions of the receiver's side until now.
func (f *fixture) arrivals() (list []Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		if e.Direction == flow.Ingress {
			list = append(list, e)
		}
	}
	f.events = nil
	return list
}

// refusedAsWorld checks that the receiver's side refused somebody whom it took for
// nobody's, and nobody else.
func (f *fixture) refusedAsWorld() {
	f.t.Helper()
	var list []Event
	waitFor(f.t, "a decision of the receiver's side", func() bool { list = append(list, f.arrivals()...); return len(list) > 0 })
	for _, e := range list {
		if e.Allowed || e.Peer != identity.World || e.Src.Addr() != netip.MustParseAddr(addrA4) || e.PID != 0 {
			f.t.Errorf("record %+v", e)
		}
	}
}

// Sockets of two namespaces that claim one tuple are nobody's while both are there,
// although each of them alone would be let in.
func TestTwoClaims(t *testing.T) {
	f, c := impostorFixture(t, ingress(row(clientIdentity, 80, l7rules.ActionAllow), row(thirdIdentity, 80, l7rules.ActionAllow)))
	f.addWith(EndpointConfig{ID: thirdID, Identity: thirdIdentity, Netns: c.path}, Policy{})
	serve := func() *proc { return f.serve(f.cgroup, f.b, "tcp4 bind 0.0.0.0:80") }

	s := serve()
	unmute := mute(t, f.a, "va")
	first := f.connecting(f.a, 1)
	if got := f.tuple(c); got != "connect:ECONNREFUSED" {
		t.Errorf("the second: %s", got)
	}
	f.refusedAsWorld()
	// The second is gone: the first is known again. Its SYN comes once more within a second.
	waitFor(t, "one claim to be left", func() bool { return f.claims() == 1 })
	answerBy(t, f.b, "vb")
	unmute()
	if got := first.wait(); got != "got=hello" {
		t.Errorf("the first, alone again: %s", got)
	}
	s.wait()
	f.nothingLeft()

	// The first goes before the second: whose the tuple is now nobody can tell.
	s = serve()
	mute(t, f.a, "va")
	answerBy(t, f.b, "vbc")
	unmute = mute(t, c, "vc")
	first, second := f.connecting(f.a, 1), f.connecting(c, 2)
	first.cmd.Process.Kill()
	waitFor(t, "one claim to be left", func() bool { return f.claims() == 1 })
	f.forget()
	unmute()
	if got := second.wait(); got != "connect:ECONNREFUSED" {
		t.Errorf("the second: %s", got)
	}
	f.refusedAsWorld()
	f.nothingLeft()

	// Alone, the other namespace is itself, whatever address it shows.
	if got := f.tuple(c); got != "got=hello" {
		t.Errorf("alone: %s", got)
	}
	s.wait()
	for _, e := range f.arrivals() {
		if e.Peer != thirdIdentity || !e.Allowed {
			t.Errorf("record %+v", e)
		}
	}
	f.nothingLeft()
}

// Somebody of another namespace who is no endpoint and shows the very tuple that an
// endpoint's socket has claimed, by a socket or by packets of its own making, is not
// taken for that endpoint: not in the kernel, and not by the proxy.
func TestImpostor(t *testing.T) {
	for _, action := range []l7rules.Action{l7rules.ActionAllow, l7rules.ActionRedirect} {
		t.Run(fmt.Sprint("action ", action), func(t *testing.T) {
			f, c := impostorFixture(t, ingress(row(clientIdentity, 80, action)))
			w := f.forward()
			w.only.Store(uint32(clientIdentity))
			s := f.serve(f.cgroup, f.b, "tcp4 bind 0.0.0.0:80")

			// The address alone.
			if got := f.tuple(c); got != "connect:ECONNREFUSED" {
				t.Errorf("with an added address: %s", got)
			}
			f.refusedAsWorld()
			if got := forgedSYN(t, c); got != "refused" {
				t.Errorf("a forged SYN was %s", got)
			}
			f.refusedAsWorld()

			// The tuple of a socket that is there.
			unmute := mute(t, f.a, "va")
			client := f.connecting(f.a, 1)
			if got := f.tuple(c, "quick"); strings.Contains(got, "hello") { // who looks like somebody else gets no answer
				t.Errorf("with an endpoint's tuple: %s", got)
			}
			// The proxy's own listener answers; without the client's number there is no connection.
			want := map[l7rules.Action]string{l7rules.ActionAllow: "ignored", l7rules.ActionRedirect: "answered"}[action]
			if got := forgedSYN(t, c); got != want {
				t.Errorf("a forged SYN with an endpoint's tuple was %s, want %s", got, want)
			}
			if n := w.n.Load(); (n == 1) != (action == l7rules.ActionRedirect) {
				t.Errorf("the proxy saw %d connections", n)
			}
			answerBy(t, f.b, "vb")
			unmute()
			if got := client.wait(); got != "got=hello" {
				t.Errorf("the endpoint itself: %s", got)
			}
			s.wait()
			f.nothingLeft()
			for _, e := range f.arrivals() {
				if e.Allowed != (e.Peer == clientIdentity) || !e.Allowed && e.Peer != identity.World {
					t.Errorf("record %+v", e)
				}
			}
			if action == l7rules.ActionRedirect {
				if r := <-w.seen; r.Peer != identity.World || r.PID != 0 {
					t.Errorf("the proxy saw %+v of the impostor", r)
				}
				if r := <-w.seen; r.Peer != clientIdentity || r.PID == 0 {
					t.Errorf("the proxy saw %+v of the endpoint", r)
				}
			}
		})
	}
}

// forgedSYN sends a SYN with the tests' tuple through a raw socket, and says what
// became of it.
func forgedSYN(t *testing.T, ns namespace) (fate string) {
	t.Helper()
	inside(t, ns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		tv := unix.NsecToTimeval(int64(time.Second))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		src, dst := netip.MustParseAddr(addrA4).As4(), netip.MustParseAddr(addrB4).As4()
		syn := make([]byte, 20)
		binary.BigEndian.PutUint16(syn, tuplePort)
		binary.BigEndian.PutUint16(syn[2:], 80)
		binary.BigEndian.PutUint32(syn[4:], 12345)
		syn[12], syn[13] = 5<<4, 2 // 20 bytes; SYN
		binary.BigEndian.PutUint16(syn[14:], 1024)
		sum := uint32(unix.IPPROTO_TCP + len(syn))
		for _, b := range [][]byte{src[:], dst[:], syn} {
			for i := 0; i < len(b); i += 2 {
				sum += uint32(binary.BigEndian.Uint16(b[i:]))
			}
		}
		for sum > 0xffff {
			sum = sum&0xffff + sum>>16
		}
		binary.BigEndian.PutUint16(syn[16:], ^uint16(sum))
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: src}); err != nil {
			return err
		}
		if err := unix.Sendto(fd, syn, 0, &unix.SockaddrInet4{Addr: dst}); err != nil {
			return err
		}
		for buf := make([]byte, 200); ; {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			switch {
			case err == unix.EAGAIN:
				fate = "ignored"
				return nil
			case err != nil:
				return err
			case n < 40 || binary.BigEndian.Uint16(buf[22:]) != tuplePort:
				continue
			}
			fate = "refused"
			if buf[33]&2 != 0 { // SYN
				fate = "answered"
			}
			return nil
		}
	})
	return fate
}
