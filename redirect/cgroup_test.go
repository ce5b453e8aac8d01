//go:build linux

package redirect

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/weir-proxy/weir/bpf"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/internal/testbed"
	"github.com/weir-proxy/weir/l7rules"
	"golang.org/x/sys/unix"
)

func addAddr(dev, cidr string) error {
	l, err := netlink.LinkByName(dev)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	return netlink.AddrAdd(l, a)
}

// writeSysctl writes a network sysctl of the calling thread's namespace.
func writeSysctl(name, value string) error {
	return os.WriteFile("/proc/sys/"+name, []byte(value), 0)
}

func fillFlows(t *testing.T, m *ebpf.Map) {
	t.Helper()
	n := int(m.MaxEntries())
	keys, values := make([]bpf.WeirFlowKey, n), make([]bpf.WeirFlow, n)
	for i := range keys {
		keys[i].Netns = ^uint64(0)
		keys[i].Local.Ip[0] = uint32(i)
	}
	if _, err := m.BatchUpdate(keys, values, nil); err != nil {
		t.Fatal(err)
	}
}

// cgroupFixture is an endpoint that is a cgroup, in the first of two namespaces.
func cgroupFixture(t *testing.T, rows ...PolicyRow) *fixture {
	t.Helper()
	testbed.NeedKernel(t)
	f := &fixture{t: t, cgroup: newCgroup(t), bpffs: testBPFFS(t)}
	f.a, f.b = newPair(t)
	f.start(Config{})
	f.add(EndpointConfig{ID: testEndpoint, Identity: 1000, Cgroup: inode(t, f.cgroup), Netns: f.a.path}, rows)
	return f
}

func TestCgroupEndpoint(t *testing.T) {
	host := func(first, last uint16, a l7rules.Action) PolicyRow {
		return PolicyRow{Peer: identity.Host, Proto: unix.IPPROTO_TCP, First: first, Last: last, Action: a}
	}
	f := cgroupFixture(t, toWorld, host(8080, 8080, l7rules.ActionRedirect), host(8090, 8090, l7rules.ActionAllow))
	f.answerOrigin()
	t.Run("the world, redirected", func(t *testing.T) {
		f.t = t
		if got := f.run("tcp4", "connect", addrB4+":80", "send", "recv"); got != "got="+addrB4+":80" {
			t.Error(got)
		}
	})
	t.Run("a process below the endpoint's cgroup is the endpoint", func(t *testing.T) {
		deep := filepath.Join(f.cgroup, "x", "y")
		if err := os.MkdirAll(deep, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(filepath.Dir(deep))
		defer os.Remove(deep)
		if got := runIn(t, deep, f.a, 0, "tcp4", "connect", addrB4+":80", "send", "recv"); got != "got="+addrB4+":80" {
			t.Error(got)
		}
	})
	t.Run("the host by loopback and by its own addresses, redirected", func(t *testing.T) {
		f.t = t
		for _, a := range []string{"127.0.0.1:8080", "127.9.9.9:8080", "0.0.0.0:8080", addrA4 + ":8080"} {
			got := serveOnce(t, f.a, "tcp4", "0.0.0.0:8080", func() string { return f.run("tcp4", "connect", a, "send", "recv") })
			if got != "got="+a {
				t.Errorf("%s: %s", a, got)
			}
		}
		for _, a := range []string{"[::1]:8080", "[::]:8080", "[" + addrA6 + "]:8080"} {
			got := serveOnce(t, f.a, "tcp6", "[::]:8080", func() string { return f.run("tcp6", "connect", a, "send", "recv") })
			if got != "got="+a {
				t.Errorf("%s: %s", a, got)
			}
		}
	})
	t.Run("a loopback port where nobody listens refuses as Linux does", func(t *testing.T) {
		f.t = t
		f.forget()
		if got := f.run("tcp4", "connect", "127.0.0.1:8080"); got != "connect:ECONNREFUSED" {
			t.Error(got)
		}
		if e := f.event(); e.Reason != ReasonNobodyListens || e.Peer != identity.Host {
			t.Errorf("record %+v", e)
		}
		if got := f.run("tcp4", "connect", "127.0.0.1:8081"); got != "connect:ECONNREFUSED" {
			t.Error(got)
		}
		if e := f.event(); e.Reason != ReasonPolicy || e.Allowed {
			t.Errorf("record of a port that is denied anyway: %+v", e)
		}
	})
	t.Run("a listener of its own is reached without the proxy", func(t *testing.T) {
		f.t = t
		f.forget()
		p := spawn(t, f.cgroup, f.a, 0, "tcp4", "bind", "127.0.0.1:9999", "listen", "say", "up", "accept", "send")
		p.until("up ")
		if got := f.run("tcp4", "connect", "127.0.0.1:9999", "recv"); got != "got=hello" {
			t.Error(got)
		}
		p.wait()
	})
	t.Run("the same port on another's socket is not", func(t *testing.T) {
		f.t = t
		got := serveOnce(t, f.a, "tcp4", "127.0.0.1:9997", func() string { return f.run("tcp4", "connect", "127.0.0.1:9997") })
		if got != "connect:ECONNREFUSED" {
			t.Error(got)
		}
	})
	t.Run("joining another's SO_REUSEPORT group opens nothing", func(t *testing.T) {
		f.t = t
		other := newCgroup(t)
		p := spawn(t, other, f.a, 0, "tcp4", "reuseport", "bind", "127.0.0.1:9998", "listen", "say", "up", "wait")
		p.until("up ")
		if got := f.run("tcp4", "reuseport", "bind", "127.0.0.1:9998", "listen", "tcp4", "connect", "127.0.0.1:9998"); got != "connect:ECONNREFUSED" {
			t.Error(got)
		}
		p.wait()
	})
	t.Run("allowed at L4, straight", func(t *testing.T) {
		f.t = t
		got := serveOnce(t, f.a, "tcp4", "127.0.0.1:8090", func() string { return f.run("tcp4", "connect", "127.0.0.1:8090", "send", "recv") })
		if got != "got=hi 127.0.0.1" {
			t.Error(got)
		}
	})
	t.Run("a process outside is nobody's", func(t *testing.T) {
		got := serveOnce(t, f.b, "tcp4", addrB4+":81", func() string {
			return runIn(t, newCgroup(t), f.a, 0, "tcp4", "connect", addrB4+":81", "send", "recv")
		})
		if got != "got=hi "+addrA4 {
			t.Error(got)
		}
	})
	f.t = t
	f.nothingLeft()
}

func TestEndpointRefusals(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct {
		cfg  EndpointConfig
		want string
	}{
		{EndpointConfig{ID: 0, Netns: f.a.path}, "its number is 0"},
		{EndpointConfig{ID: 9, Cgroup: 1}, "cgroup 1 is the root"},
		{EndpointConfig{ID: 9}, "neither a cgroup nor a network namespace"},
		{EndpointConfig{ID: testEndpoint, Netns: f.b.path}, "there is one of that number"},
		{EndpointConfig{ID: 9, Netns: "/nonexistent"}, "open network namespace /nonexistent"},
	} {
		_, err := f.d.AddEndpoint(tt.cfg, Policy{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.cfg, err, tt.want)
		}
	}
}

// A clean stop leaves nothing in the kernel.
func TestCloseLeavesNothing(t *testing.T) {
	testbed.NeedKernel(t)
	f := newFixture(t, toWorld)
	f.answerOrigin()
	f.run("tcp4", "connect", addrB4+":80", "send", "recv")
	info, err := f.d.objs.WeirConnect4.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	if err := f.d.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the program to be freed", func() bool {
		p, err := ebpf.NewProgramFromID(id)
		if err == nil {
			p.Close()
		}
		return errors.Is(err, fs.ErrNotExist)
	})
	var left []string
	filepath.WalkDir(f.bpffs, func(p string, d fs.DirEntry, err error) error {
		if rel := strings.TrimPrefix(p, f.bpffs); rel != "" && !strings.HasSuffix(rel, ".debug") { // the kernel's own
			left = append(left, p)
		}
		return nil
	})
	if len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	got := serveOnce(t, f.b, "tcp4", addrB4+":81", func() string { return f.run("tcp4", "connect", addrB4+":81", "send", "recv") })
	if got != "got=hi "+addrA4 {
		t.Errorf("after Close: %s", got)
	}
}

// agentChild is a proxy that waits to be killed: arguments are the pin
// directory, the cgroup and its namespace. It answers every connection.
func agentChild(a []string) {
	ns := namespace{path: a[2]}
	if err := ns.enter(func() error { return nil }); err != nil { // main thread: this process stays there
		fmt.Println(err)
		os.Exit(1)
	}
	cg, err := os.Open(a[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	st, _ := cg.Stat()
	own, err := os.Open(a[3])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	d, err := Open(Config{Name: "killed", BPFFS: a[0], Cgroup: cg, ProxyCgroup: own, CutWithProxy: true})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	rows := []PolicyRow{toWorld}
	if a[4] == "direct" {
		rows[0].Last = 89
		rows = append(rows, PolicyRow{Peer: identity.World, Proto: unix.IPPROTO_TCP, First: 90, Last: 90, Action: l7rules.ActionAllow})
	}
	if _, err := d.AddEndpoint(EndpointConfig{ID: testEndpoint, Identity: 1000, Cgroup: cgroupIno(st), Netns: a[2]}, Policy{Egress: Side{Enforced: true, Rows: rows}}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("up", d.places[netnsOf(d)].ln.Addr().(*net.TCPAddr).Port)
	for {
		r, err := d.Accept(nil)
		if err != nil {
			return
		}
		go func() {
			buf := make([]byte, 100)
			for {
				if _, err := r.Conn.Read(buf); err != nil {
					return
				}
				fmt.Fprint(r.Conn, r.Original)
			}
		}()
	}
}

func netnsOf(d *Datapath) uint64 {
	for c := range d.places {
		return c
	}
	return 0
}

// A proxy that was killed cuts its workload off: redirected connections fail at
// once, nothing new passes, direct connections fall silent, and whoever binds
// the ports it used receives nothing.
func TestKilledProxy(t *testing.T) {
	testbed.NeedKernel(t)
	f := &fixture{t: t, cgroup: newCgroup(t), bpffs: testBPFFS(t)}
	f.a, f.b = newPair(t)
	agent := exec.Command("/proc/self/exe", "agent", f.bpffs, f.cgroup, f.a.path, ownCgroup(t), "direct")
	agent.Stderr = os.Stderr
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer agent.Process.Kill()
	said, _ := bufio.NewReader(out).ReadString('\n')
	var port int
	if _, err := fmt.Sscanf(said, "up %d", &port); err != nil {
		t.Fatalf("agent: %s", said)
	}
	// Two open connections, one through the proxy, one straight.
	redirected := spawn(t, f.cgroup, f.a, 0, "tcp4", "connect", addrB4+":80", "send", "recv", "say", "ready", "wait", "send", "recv")
	redirected.until("ready ")
	var ln net.Listener
	inside(t, f.b, func() (err error) {
		ln, err = net.Listen("tcp4", addrB4+":90")
		return err
	})
	defer ln.Close()
	direct := spawn(t, f.cgroup, f.a, 0, "tcp4", "connect", addrB4+":90", "send", "say", "ready", "wait", "send", "unacked")
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	direct.until("ready ")
	if n, _ := server.Read(make([]byte, 100)); n != 5 {
		t.Fatalf("before the kill: the server got %d bytes", n)
	}

	// A source route would carry a packet to another machine first.
	seen := sniff(t, f.b)
	if got := f.run("tcp4", "quick", "sourceroute", addrB4, "connect", "10.99.0.3:80"); !strings.HasPrefix(got, "sourceroute:EPERM") {
		t.Errorf("connect with a source route: %s", got)
	}
	if seen("10.99.0.2") {
		t.Error("a packet with a source route left")
	}
	// An option longer than a page is Linux's to judge, not refused for its length.
	if got := f.run("tcp4", "longoption"); got != "" {
		t.Errorf("a long option: %s", got)
	}

	agent.Process.Kill()
	agent.Wait()

	redirected.poke()
	if got := redirected.wait(); strings.Contains(strings.TrimPrefix(got, "got="+addrB4+":80 ready"), "got=10") {
		t.Errorf("redirected connection lives on: %s", got)
	}
	direct.poke()
	if got := direct.wait(); !strings.HasSuffix(got, "unacked=5") {
		t.Errorf("direct connection lives on: %s", got)
	}
	server.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := server.Read(make([]byte, 100)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the kill the server got %d bytes, %v", n, err)
	}
	for _, dst := range []string{addrB4 + ":80", addrB4 + ":90"} {
		if got := f.run("tcp4", "connect", dst); got != "connect:ECONNREFUSED" {
			t.Errorf("connect to %s after the kill: %s", dst, got)
		}
	}
	// Somebody else takes the ports and waits.
	thief := newCgroup(t)
	const nobody = 65534
	taken := spawn(t, thief, f.a, nobody, "tcp4", "bind", fmt.Sprintf("0.0.0.0:%d", port), "listen", "say", "bound", "accept")
	taken.until("bound ")
	root := spawn(t, thief, f.a, 0, "tcp4", "bind", "0.0.0.0:1", "listen", "say", "bound", "accept")
	root.until("bound ")
	for _, dst := range []string{addrB4 + ":80", "127.0.0.1:1", fmt.Sprintf("127.0.0.1:%d", port)} {
		if got := f.run("tcp4", "connect", dst, "send"); got != "connect:ECONNREFUSED" {
			t.Errorf("connect to %s: %s", dst, got)
		}
	}
	for _, p := range []*proc{taken, root} {
		if got := p.wait(); strings.Contains(got, "client=") {
			t.Errorf("a stranger received a connection: %s", got)
		}
	}
}

func cgroupIno(st os.FileInfo) uint64 { return st.Sys().(*syscall.Stat_t).Ino }

// sniff watches what arrives in a namespace; the function it returns says whether
// an IPv4 packet with options came to an address until now.
func sniff(t *testing.T, ns namespace) func(dst string) bool {
	t.Helper()
	var fd int
	inside(t, ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0x0008) // ETH_P_IP in network order
		return err
	})
	t.Cleanup(func() { unix.Close(fd) })
	return func(dst string) bool {
		want := netip.MustParseAddr(dst).As4()
		b := make([]byte, 2048)
		for {
			n, _, err := unix.Recvfrom(fd, b, 0)
			if err != nil {
				return false
			}
			if n >= 20 && b[0]&15 > 5 && [4]byte(b[16:20]) == want {
				return true
			}
		}
	}
}

// Where everything the policy allows goes through the proxy, a killed one cuts off a
// listener of the workload's own too.
func TestKilledProxyCutsListeners(t *testing.T) {
	testbed.NeedKernel(t)
	f := &fixture{t: t, cgroup: newCgroup(t), bpffs: testBPFFS(t)}
	f.a, f.b = newPair(t)
	agent := exec.Command("/proc/self/exe", "agent", f.bpffs, f.cgroup, f.a.path, ownCgroup(t), "redirected")
	agent.Stderr = os.Stderr
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer agent.Process.Kill()
	if said, _ := bufio.NewReader(out).ReadString('\n'); !strings.HasPrefix(said, "up ") {
		t.Fatalf("agent: %s", said)
	}
	server := spawn(t, f.cgroup, f.a, 0, "tcp4", "bind", addrA4+":7000", "listen", "say", "up", "accept", "send", "say", "sent", "wait", "send", "unacked")
	server.until("up ")
	var c net.Conn
	inside(t, f.b, func() (err error) {
		c, err = net.Dial("tcp4", addrA4+":7000")
		return err
	})
	defer c.Close()
	server.until("sent ")
	if n, _ := c.Read(make([]byte, 100)); n != 5 {
		t.Fatalf("before the kill %d bytes came", n)
	}
	agent.Process.Kill()
	agent.Wait()
	server.poke()
	if got := server.wait(); !strings.HasSuffix(got, "unacked=5") {
		t.Errorf("the workload still sends: %s", got)
	}
	c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, _ := c.Read(make([]byte, 100)); n != 0 {
		t.Errorf("after the kill %d bytes came", n)
	}
}
