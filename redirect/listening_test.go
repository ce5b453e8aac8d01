//go:build linux

package redirect

import (
	"net"
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
		table, err := f.d.listeningTable()
		if err != nil {
			t.Fatal(err)
		}
		return len(table[netns])
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
	resync := func() {
		t.Helper()
		if err := f.d.Resync(); err != nil {
			t.Fatal(err)
		}
	}
	resync()
	resync()
	if n := entries(f.b.cookie); n != 2 {
		t.Errorf("%d entries after the sweep while 2 sockets listen", n)
	}
	if got := f.run("tcp4", "connect", addrB4+":80", "recv"); got != "got=hello" {
		t.Error("after the sweep:", got)
	}
	s.wait()

	// What was counted wrongly is put right: too low, as when the sweep takes an entry at
	// the moment of another listen(), and too high.
	k := lportKey(f.b.cookie, list[0].Addr().(*net.TCPAddr).AddrPort())
	refs := func() int32 {
		var v bpf.WeirLport
		f.d.objs.Listening.Lookup(k, &v)
		return v.Refs
	}
	for _, wrong := range []int32{0, -1, 2} {
		if err := f.d.objs.Listening.Put(k, bpf.WeirLport{Refs: wrong}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the count to be right again", func() bool { resync(); return refs() == 1 })
	}
	if n := entries(f.b.cookie); n != 1 {
		t.Errorf("%d entries while 1 socket listens", n)
	}
	list[0].Close()
	for range 3 {
		resync()
	}
	if n := entries(f.b.cookie); n != 0 {
		t.Errorf("%d entries left", n)
	}
}
