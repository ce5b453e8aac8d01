//go:build linux

package redirect

import (
	"net"
	"net/netip"
	"testing"

	"github.com/weir-proxy/weir/bpf"
	"github.com/weir-proxy/weir/l7rules"
)

// A workload that listens everywhere in turn does not fill the table of everybody, and
// what listens where nobody is under policy is not in it at all.
func TestSweepListening(t *testing.T) {
	f := ingressFixture(t, ingress(row(clientIdentity, 80, l7rules.ActionRedirect)))
	f.forward()
	own, err := netnsCookie()
	if err != nil {
		t.Fatal(err)
	}
	entries := func(netns uint64) int {
		keys, err := f.d.findListening(func(k bpf.WeirLportKey, _ bpf.WeirLport) bool { return k.Netns == netns })
		if err != nil {
			t.Fatal(err)
		}
		return len(keys)
	}
	const many = 300
	listenMany := func() (list []net.Listener) {
		for range many {
			ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, ln)
		}
		return list
	}

	for _, ln := range listenMany() {
		ln.Close()
	}
	if n := entries(own); n != 0 {
		t.Errorf("%d entries of a namespace in which nobody is under policy", n)
	}

	s := f.serve(f.cgroup, f.b, "tcp4 bind "+addrB4+":80")
	var list []net.Listener
	inside(t, f.b, func() error { list = listenMany(); return nil })
	if n := entries(f.b.cookie); n != many+1 {
		t.Errorf("%d entries while %d sockets listen", n, many+1)
	}
	for _, ln := range list[1:] {
		ln.Close()
	}
	if err := f.d.Resync(); err != nil {
		t.Fatal(err)
	}
	if n := entries(f.b.cookie); n != 2 {
		t.Errorf("%d entries after the sweep while 2 sockets listen", n)
	}
	if got := f.run("tcp4", "connect", addrB4+":80", "recv"); got != "got=hello" {
		t.Error("after the sweep:", got)
	}
	s.wait()

	// An entry that the sweep lost to a socket's listen() comes back, and goes with it.
	addr := list[0].Addr().(*net.TCPAddr).AddrPort()
	if err := f.d.objs.Listening.Put(lportKey(f.b.cookie, addr), bpf.WeirLport{}); err != nil {
		t.Fatal(err)
	}
	if err := f.d.Resync(); err != nil {
		t.Fatal(err)
	}
	if id := f.d.listener(f.b.cookie, netip.AddrPortFrom(addr.Addr(), addr.Port())); id != 0 {
		t.Errorf("endpoint %d owns a socket of the test", id)
	}
	if n := entries(f.b.cookie); n != 1 {
		t.Errorf("%d entries while 1 socket listens", n)
	}
	list[0].Close()
	for range 2 {
		if err := f.d.Resync(); err != nil {
			t.Fatal(err)
		}
	}
	if n := entries(f.b.cookie); n != 0 {
		t.Errorf("%d entries left", n)
	}
}
