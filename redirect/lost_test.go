//go:build linux

package redirect

import (
	"fmt"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/weir-proxy/weir/bpf"
	"github.com/weir-proxy/weir/l7rules"
	"golang.org/x/sys/unix"
)

// A veth that is pulled takes the addresses with it: the proxy's connections end on
// both sides, and nothing is left of them. Those of others stay.
func TestPulledVeth(t *testing.T) {
	f := ingressFixture(t, ingress(row(clientIdentity, 80, l7rules.ActionRedirect), row(clientIdentity, 81, l7rules.ActionAllow)))
	w := f.forward()
	serve := func(port string) *proc {
		s := spawn(t, f.cgroup, f.b, 0, "tcp4", "bind", "0.0.0.0:"+port, "listen", "say", "up", "accept", "send", "say", "sent", "unlimited", "recv")
		s.until("up ")
		return s
	}
	proxied, direct := serve("80"), serve("81")
	for _, port := range []string{"80", "81"} {
		c := spawn(t, f.cgroup, f.a, 0, "tcp4", "connect", addrB4+":"+port, "recv", "say", "connected", "unlimited", "recv")
		c.until("connected ")
	}
	proxied.until("sent ")
	direct.until("sent ")

	// An address that is put on again is none that is gone.
	flap := func(name, addr string) {
		inside(t, f.b, func() error {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			a, err := netlink.ParseAddr(addr)
			if err != nil {
				return err
			}
			if err := netlink.AddrDel(l, a); err != nil {
				return err
			}
			return netlink.AddrAdd(l, a)
		})
	}
	flap("vb", addrB4+"/24")
	for range 3 {
		if err := f.d.Resync(); err != nil {
			t.Fatal(err)
		}
	}
	if w.active.Load() != 1 {
		t.Fatal("an address that came back ended a connection")
	}

	inside(t, f.b, func() error {
		l, err := netlink.LinkByName("vb")
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
	waitFor(t, "the connection to end in the proxy", func() bool {
		if err := f.d.Resync(); err != nil {
			t.Fatal(err)
		}
		return w.active.Load() == 0
	})
	proxied.wait()
	if err := direct.cmd.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("the server of the other connection: %v", err)
	}
	// What the clients have left is Linux's to end: their last words find no way out.
	waitFor(t, "the proxy's entries to be deleted", func() bool {
		var k bpf.WeirFlowKey
		var v bpf.WeirFlow
		n := 0
		for it := f.d.objs.Flows.Iterate(); it.Next(&k, &v); {
			if bpf.WeirKind(v.Kind) == bpf.WeirKindKIND_UPSTREAM {
				n++
			}
		}
		return n == 0
	})
}

// A connection whose other end died without a word is found out: the proxy asks it now
// and then, whether it is a client from elsewhere or where the client wanted to go.
func TestKeepAlive(t *testing.T) {
	f := newFixture(t, toWorld)
	asks := func(c *net.TCPConn) (s string) {
		t.Helper()
		err := control(c, func(fd uintptr) error {
			for _, o := range [][2]int{{unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT}} {
				n, err := unix.GetsockoptInt(int(fd), o[0], o[1])
				if err != nil {
					return err
				}
				s += fmt.Sprint(n, " ")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	var ln net.Listener
	inside(t, f.b, func() (err error) { ln, err = net.Listen("tcp4", addrB4+":80"); return err })
	defer ln.Close()
	c := spawn(t, f.cgroup, f.a, 0, "tcp4", "connect", addrB4+":80", "eof")
	r, err := f.d.Accept(nil)
	if err != nil {
		t.Fatal(err)
	}
	up, err := r.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, conn := range []*net.TCPConn{r.Conn, up} {
		if got, want := asks(conn), "1 120 10 6 "; got != want {
			t.Errorf("keepalive %s, want %s", got, want)
		}
		conn.Close()
	}
	c.wait()
}
