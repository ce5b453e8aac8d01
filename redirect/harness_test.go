//go:build linux

package redirect

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/internal/testbed"
	"github.com/weir-proxy/weir/internal/testbed/netns"
	"github.com/weir-proxy/weir/l7rules"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		child(os.Args[2:])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		agentChild(os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

var serial atomic.Uint32

func unique(prefix string) string {
	return fmt.Sprintf("%s-%d-%d", prefix, os.Getpid(), serial.Add(1))
}

func cgroup2Mount(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	t.Fatal("no cgroup2 mount")
	return ""
}

// newCgroup makes a throw-away cgroup; at the end its processes are killed and
// it is removed.
func newCgroup(t *testing.T) string {
	t.Helper()
	return newCgroupIn(t, cgroup2Mount(t))
}

func newCgroupIn(t *testing.T, parent string) string {
	t.Helper()
	p := filepath.Join(parent, unique("weir-test"))
	if err := os.Mkdir(p, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.WriteFile(p+"/cgroup.kill", []byte("1"), 0)
		waitFor(t, "cgroup to empty", func() bool { return os.Remove(p) == nil || !exists(p) })
	})
	return p
}

func exists(p string) bool { _, err := os.Stat(p); return err == nil }

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(10 * time.Second); !cond(); <-look.C {
		if time.Now().After(end) {
			t.Fatalf("timeout waiting for %s", what)
		}
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// testBPFFS mounts an instance of bpffs of our own: nothing is left on the
// machine's, and runs side by side do not meet.
func testBPFFS(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// newNamespace makes a network namespace, bound to a path, with lo up.
func newNamespace(t *testing.T) namespace {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ns")
	if err := netns.Make(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Remove(path) })
	n, err := openNamespace(path)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The two ends of a pair of namespaces.
const (
	addrA4, addrB4 = "10.99.0.1", "10.99.0.2"
	addrA6, addrB6 = "fd99::1", "fd99::2"
)

// newPair joins two namespaces by a veth, with default routes to each other.
func newPair(t *testing.T) (a, b namespace) {
	t.Helper()
	a, b = newNamespace(t), newNamespace(t)
	wire(t,
		netns.End{Path: a.path, Device: "va", Addrs: prefixes(addrA4+"/24", addrA6+"/64")},
		netns.End{Path: b.path, Device: "vb", Addrs: prefixes(addrB4+"/24", addrB6+"/64")})
	route := func(n namespace, dev string, via ...string) {
		inside(t, n, func() error {
			l, err := netlink.LinkByName(dev)
			if err != nil {
				return err
			}
			for _, g := range via {
				if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(g)}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	route(a, "va", addrB4, addrB6)
	route(b, "vb", addrA4, addrA6)
	return a, b
}

func wire(t *testing.T, a, b netns.End) {
	t.Helper()
	if err := netns.Wire(a, b); err != nil {
		t.Fatal(err)
	}
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

func inside(t *testing.T, n namespace, f func() error) {
	t.Helper()
	if err := n.do(f); err != nil {
		t.Fatal(err)
	}
}

// fixture is a datapath with one endpoint that is a namespace, joined to another.
type fixture struct {
	t      *testing.T
	cgroup string
	bpffs  string
	a, b   namespace
	d      *Datapath

	mu     sync.Mutex
	events []Event
}

const testEndpoint = 7

func newFixture(t *testing.T, rows ...PolicyRow) *fixture {
	t.Helper()
	testbed.NeedKernel(t)
	f := &fixture{t: t, cgroup: newCgroup(t), bpffs: testBPFFS(t)}
	f.a, f.b = newPair(t)
	f.start(Config{})
	f.add(EndpointConfig{ID: testEndpoint, Identity: 1000, Netns: f.a.path}, rows)
	return f
}

func (f *fixture) start(cfg Config) {
	f.t.Helper()
	cfg.Name = unique("test")
	cfg.BPFFS = f.bpffs
	cfg.Cgroup = open(f.t, f.cgroup)
	cfg.ProxyCgroup = open(f.t, ownCgroup(f.t))
	cfg.OnEvent = func(e Event) {
		f.mu.Lock()
		f.events = append(f.events, e)
		f.mu.Unlock()
	}
	d, err := Open(cfg)
	if err != nil {
		f.t.Fatalf("%+v", err)
	}
	f.t.Cleanup(func() {
		if err := d.Close(); err != nil {
			f.t.Error(err)
		}
	})
	f.d = d
}

func (f *fixture) add(cfg EndpointConfig, rows []PolicyRow) *Endpoint {
	f.t.Helper()
	e, err := f.d.AddEndpoint(cfg, Policy{Egress: Side{Enforced: true, Rows: rows}})
	if err != nil {
		f.t.Fatal(err)
	}
	return e
}

// event waits for the next decision of the kernel.
func (f *fixture) event() Event {
	f.t.Helper()
	var e Event
	waitFor(f.t, "event", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.events) == 0 {
			return false
		}
		e, f.events = f.events[0], f.events[1:]
		return true
	})
	return e
}

// forget drops the decisions so far.
func (f *fixture) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = nil
}

func ownCgroup(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if p, ok := strings.CutPrefix(l, "0::"); ok {
			return filepath.Join(cgroup2Mount(t), strings.TrimSpace(p))
		}
	}
	t.Fatal("no cgroup v2")
	return ""
}

// toWorld redirects every TCP port of the world, as an HTTP rule would.
var toWorld = PolicyRow{Peer: identity.World, Proto: unix.IPPROTO_TCP, First: 0, Last: 65535, Action: l7rules.ActionRedirect}

// answerOrigin is a proxy that tells each client where it was going.
func (f *fixture) answerOrigin() *atomic.Int64 {
	var n atomic.Int64
	go func() {
		for {
			r, err := f.d.Accept(nil)
			if err != nil {
				return
			}
			n.Add(1)
			go func() {
				defer r.Conn.Close()
				r.Conn.SetDeadline(time.Now().Add(5 * time.Second))
				if k, _ := r.Conn.Read(make([]byte, 100)); k > 0 {
					fmt.Fprint(r.Conn, r.Original)
				}
			}()
		}
	}()
	return &n
}

// run runs a script of socket calls (child_test.go) in the cgroup and the first
// namespace, and returns what it printed.
func (f *fixture) run(script ...string) string {
	f.t.Helper()
	return runIn(f.t, f.cgroup, f.a, 0, script...)
}

func runIn(t *testing.T, cgroup string, ns namespace, uid uint32, script ...string) string {
	t.Helper()
	p := spawn(t, cgroup, ns, uid, script...)
	return p.wait()
}

// proc is a running child.
type proc struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin *os.File
	out   *bufio.Reader
	said  strings.Builder
}

func spawn(t *testing.T, cgroup string, ns namespace, uid uint32, script ...string) *proc {
	t.Helper()
	return spawnWith(t, cgroup, ns, uid, nil, script...)
}

// spawnWith gives the child a socket as well, which the word "inherit" makes its first.
func spawnWith(t *testing.T, cgroup string, ns namespace, uid uint32, sock *os.File, script ...string) *proc {
	t.Helper()
	cg := open(t, cgroup)
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	exe := "/proc/self/exe"
	cmd := exec.Command(exe, append([]string{"child", ns.path, fmt.Sprint(uid)}, script...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cg.Fd())}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, outW
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // the race detector waits a second at the end of each
	if sock != nil {
		cmd.ExtraFiles = []*os.File{sock}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inR.Close()
	outW.Close()
	p := &proc{t: t, cmd: cmd, stdin: inW, out: bufio.NewReader(outR)}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); inW.Close(); outR.Close() })
	return p
}

// until reads the child's output up to and with a word.
func (p *proc) until(word string) {
	p.t.Helper()
	for !strings.HasSuffix(p.said.String(), word) {
		b, err := p.out.ReadByte()
		if err != nil {
			p.t.Fatalf("child ended before %q: %s", word, p.said.String())
		}
		p.said.WriteByte(b)
	}
}

// poke lets a child that waits go on.
func (p *proc) poke() { p.stdin.Write([]byte("x")) }

func (p *proc) wait() string {
	p.stdin.Close()
	for {
		b, err := p.out.ReadByte()
		if err != nil {
			break
		}
		p.said.WriteByte(b)
	}
	p.cmd.Wait()
	return strings.TrimSpace(p.said.String())
}

func mustAddrPort(s string) netip.AddrPort {
	a := netip.MustParseAddrPort(s)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
