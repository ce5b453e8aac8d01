//go:build linux

package redirect

import (
	"net"
	"os"
	"testing"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/internal/testbed"
	"github.com/weir-proxy/weir/l7rules"
)

// open opens a listening socket in the first namespace, as a service manager that is no
// endpoint would.
func (f *fixture) open(addr string) *os.File {
	f.t.Helper()
	var ln net.Listener
	inside(f.t, f.a, func() (err error) {
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		ln, err = lc.Listen(f.t.Context(), "tcp4", addr)
		return err
	})
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		f.t.Fatal(err)
	}
	ln.Close()
	return file
}

// A service whose listening socket somebody else opened, as systemd does, is judged.
func TestIngressInheritedListener(t *testing.T) {
	testbed.NeedKernel(t)
	f := &fixture{t: t, cgroup: newCgroup(t), bpffs: testBPFFS(t)}
	f.a, f.b = newPair(t)
	server := newCgroupIn(t, f.cgroup)
	f.start(Config{Ingress: true})
	f.addWith(EndpointConfig{ID: serverID, Identity: serverIdentity, Netns: f.a.path, Cgroup: inode(t, server), CgroupDir: server},
		ingress(row(identity.Host, 81, l7rules.ActionAllow)))
	for _, port := range []string{"80", "81"} {
		file := f.open("127.0.0.1:" + port)
		// The child takes it over and holds it; the copy here goes.
		s := spawnWith(t, server, f.a, 0, file, "inherit", "say", "up", "accept", "send")
		file.Close()
		s.until("up ")
		if err := f.d.Resync(); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"80": "connect:ECONNREFUSED", "81": "got=hello"}[port]
		if got := runIn(t, f.cgroup, f.a, 0, "tcp4", "connect", "127.0.0.1:"+port, "recv"); got != want {
			t.Errorf("port %s: %s, want %s", port, got, want)
		}
		s.cmd.Process.Kill()
		s.wait()
	}
}

// Whom a service accepted before it was known whose its listening socket is, is judged
// then: those that its policy does not let in are ended. Sockets of others, with the same
// port at another address, and those that were open when the endpoint came, are not.
func TestUnjudgedConnections(t *testing.T) {
	testbed.NeedKernel(t)
	f := &fixture{t: t, cgroup: newCgroup(t), bpffs: testBPFFS(t)}
	f.a, f.b = newPair(t)
	server, client := newCgroupIn(t, f.cgroup), newCgroupIn(t, f.cgroup)
	f.start(Config{Ingress: true})
	rows := ingress(row(clientIdentity, 80, l7rules.ActionAllow), row(identity.Host, 81, l7rules.ActionAllow))
	f.addWith(EndpointConfig{ID: clientID, Identity: clientIdentity, Netns: f.a.path, Cgroup: inode(t, client), CgroupDir: client}, Policy{})
	// serve hands a socket to a process of the service, which greets its clients.
	serve := func(addr string, clients int) *proc {
		file := f.open(addr)
		script := []string{"say", "up"}
		for range clients {
			script = append(script, "inherit", "accept", "send")
		}
		s := spawnWith(t, server, f.a, 0, file, append(script, "wait")...)
		file.Close()
		s.until("up ")
		return s
	}
	connect := func(cgroup, addr string) *proc {
		c := spawn(t, cgroup, f.a, 0, "tcp4", "connect", addr, "recv", "say", "greeted", "recv")
		c.until("greeted ")
		return c
	}
	resync := func() {
		t.Helper()
		if err := f.d.Resync(); err != nil {
			t.Fatal(err)
		}
	}
	before := serve("127.0.0.1:82", 1)
	older := connect(f.cgroup, "127.0.0.1:82")
	f.addWith(EndpointConfig{ID: serverID, Identity: serverIdentity, Netns: f.a.path, Cgroup: inode(t, server), CgroupDir: server}, rows)

	s := serve("127.0.0.1:80", 2)
	allowed, stranger := connect(client, "127.0.0.1:80"), connect(f.cgroup, "127.0.0.1:80")
	elsewhere := spawn(t, f.cgroup, f.a, 0, "tcp4", "bind", "127.0.0.2:80", "listen", "say", "up", "accept", "send", "wait")
	elsewhere.until("up ")
	other := connect(f.cgroup, "127.0.0.2:80")
	resync()
	if !f.d.Unsettled() {
		t.Error("a socket was found, and nobody is to look again")
	}
	if got := runIn(t, f.cgroup, f.a, 0, "tcp4", "connect", "127.0.0.1:80"); got != "connect:ECONNREFUSED" {
		t.Errorf("a stranger when the socket is known: %s", got)
	}
	resync()
	if f.d.Unsettled() {
		t.Error("there is nothing to see any more")
	}
	if got := stranger.wait(); got != "got=hello greeted recv:ECONNRESET got=" {
		t.Errorf("the stranger that came before: %s", got)
	}
	for _, p := range []*proc{s, before, elsewhere} {
		p.poke()
	}
	for name, c := range map[string]*proc{"allowed": allowed, "older than the endpoint": older, "of somebody else's": other} {
		if got := c.wait(); got != "got=hello greeted got=" {
			t.Errorf("%s: %s", name, got)
		}
	}
}
