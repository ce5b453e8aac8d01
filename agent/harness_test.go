//go:build linux

package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weir-proxy/weir/agent/internal/cgroup"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/internal/testbed"
	"github.com/weir-proxy/weir/internal/testbed/netns"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/cnp"
	"github.com/weir-proxy/weir/l7rules/flow"
	"golang.org/x/sys/unix"
)

// TestMain is also a web server and a client, for the processes of workloads.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case "hammer":
			hammer(os.Args[2])
			return
		case "serve":
			serve(os.Args[2])
			return
		case "get":
			get(os.Args[2], os.Args[3])
			return
		case "hold":
			hold(os.Args[2], os.Args[3])
			return
		case "keep", "upgrade":
			keep(os.Args[2], os.Args[1] == "upgrade")
			return
		}
	}
	code := m.Run()
	if copied.path != "" {
		os.RemoveAll(filepath.Dir(copied.path))
	}
	os.Exit(code)
}

// serve answers every request with its method, path and client.
func serve(addr string) {
	var ln net.Listener
	var err error
	if addr == "inherited" { // as systemd hands it over
		ln, err = net.FileListener(os.NewFile(3, "socket"))
	} else {
		ln, err = net.Listen("tcp", addr)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("up")
	http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "echo" {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
				io.Copy(c, c)
				c.Close()
			}
			return
		}
		fmt.Fprintf(w, "%s %s from %s", r.Method, r.URL.Path, r.RemoteAddr)
	}))
}

// get prints the status and body of one request, or why there is none.
func get(method, url string) {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		for _, known := range []string{"connection refused", "EOF", "reset"} {
			if strings.Contains(err.Error(), known) {
				fmt.Println(known)
				return
			}
		}
		fmt.Println(err)
		return
	}
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, strings.TrimSpace(string(body)))
}

// hold makes many connections, one request on each, and keeps them until the first
// ends.
func hold(addr, count string) {
	n, _ := strconv.Atoi(count)
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		conns[i] = c
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", addr)
		resp, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
		if err != nil || resp.StatusCode != 200 {
			fmt.Println(resp, err)
			os.Exit(1)
		}
		io.Copy(io.Discard, resp.Body)
	}
	fmt.Println("held")
	conns[0].Read(make([]byte, 1))
	fmt.Println("ended")
	runtime.KeepAlive(conns)
}

var serial atomic.Uint32

// rig is an agent over namespaces joined by a bridge of veths.
type rig struct {
	t     *testing.T
	a     *Agent
	cg    string // every process of the test is below it
	group string
	root  *cgroup.Root
	bpffs string
	dirs  map[string]*os.File // cgroups that processes were started in

	skip    func(*flow.Record) bool // records that are not kept; nil is none
	mu      sync.Mutex
	records []flow.Record
}

func newRig(t *testing.T) *rig {
	t.Helper()
	testbed.NeedKernel(t)
	root, err := cgroup.OpenRoot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	r := &rig{t: t, root: root, dirs: map[string]*os.File{}, group: fmt.Sprintf("/weir-agent-test-%d-%d", os.Getpid(), serial.Add(1))}
	r.cg = root.Path(r.group)
	if err := os.Mkdir(r.cg, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		root.Kill(r.group, 5*time.Second)
		removeTree(r.cg)
	})
	bpffs := t.TempDir()
	if err := unix.Mount("bpf", bpffs, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(bpffs, unix.MNT_DETACH) })
	r.bpffs = bpffs
	dir, err := os.Open(r.cg)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	own, err := root.Of("self")
	if err != nil {
		t.Fatal(err)
	}
	proxyDir, err := root.Open(own)
	if err != nil {
		t.Fatal(err)
	}
	defer proxyDir.Close()
	r.a, err = Start(Config{
		Name: fmt.Sprintf("test-%d", serial.Add(1)), BPFFS: bpffs, Cgroup: dir, ProxyCgroup: proxyDir, CgroupRoot: root.Path("/"),
		Sink: r.sink, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- r.a.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := r.a.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func removeTree(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeTree(filepath.Join(dir, e.Name()))
		}
	}
	os.Remove(dir)
}

func (r *rig) sink(rec *flow.Record) {
	if r.skip != nil && r.skip(rec) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := *rec
	if rec.Request != nil {
		c.Reason += " " + string(rec.Request.AppendText(nil))
		c.Request = nil
	}
	r.records = append(r.records, c)
}

// take returns the records so far, and forgets them, when there are n.
func (r *rig) take(n int) []flow.Record {
	r.t.Helper()
	var out []flow.Record
	waitFor(r.t, fmt.Sprintf("%d records", n), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.records) < n {
			return false
		}
		out, r.records = r.records, nil
		return true
	})
	return out
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(20 * time.Second); !cond(); <-look.C {
		if time.Now().After(end) {
			t.Fatalf("timeout waiting for %s", what)
		}
	}
}

func (r *rig) policies(yaml string) []*l7rules.Policy {
	r.t.Helper()
	if yaml == "" {
		return nil
	}
	list, _, err := cnp.Parse("test.yaml", []byte(yaml))
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

func (r *rig) setPolicies(yaml string) {
	r.t.Helper()
	if err := r.a.SetPolicies(r.policies(yaml)); err != nil {
		r.t.Fatal(err)
	}
}

func labels(t *testing.T, texts ...string) identity.Labels {
	t.Helper()
	ls, err := identity.Workload("", texts...)
	if err != nil {
		t.Fatal(err)
	}
	return ls
}

// namespace makes a network namespace, and returns its path.
func namespace(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ns")
	bindNamespace(t, path)
	t.Cleanup(func() { netns.Remove(path) })
	return path
}

func bindNamespace(t *testing.T, path string) {
	t.Helper()
	if err := netns.Make(path); err != nil {
		t.Fatal(err)
	}
}

// inside runs f on a thread of its own, in a namespace if path is not "".
func inside(t *testing.T, path string, f func() error) {
	t.Helper()
	if err := netns.Inside(path, f); err != nil {
		t.Fatal(err)
	}
}

// join connects two namespaces by a veth, each with one address and a route to the
// other's.
func join(t *testing.T, a, b, addrA, addrB string, n int) {
	t.Helper()
	hostA, hostB := []netip.Prefix{netip.MustParsePrefix(addrA + "/32")}, []netip.Prefix{netip.MustParsePrefix(addrB + "/32")}
	err := netns.Wire(
		netns.End{Path: a, Device: fmt.Sprintf("va%d", n), Addrs: hostA, Routes: hostB},
		netns.End{Path: b, Device: fmt.Sprintf("vb%d", n), Addrs: hostB, Routes: hostA})
	if err != nil {
		t.Fatal(err)
	}
}

// command runs this binary in a namespace and cgroup, as nobody.
func (r *rig) command(ns, cg string, args ...string) *exec.Cmd {
	r.t.Helper()
	dir := r.dirs[cg]
	if dir == nil {
		var err error
		if dir, err = os.Open(cg); err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { dir.Close() })
		r.dirs[cg] = dir
	}
	exe := binary(r.t)
	cmd := exec.Command(exe, args...)
	var nobody *syscall.Credential
	if ns == "" {
		nobody = &syscall.Credential{Uid: 65534, Gid: 65534}
	} else {
		cmd = exec.Command("nsenter", append([]string{"--net=" + ns, "-S", "65534", "-G", "65534", exe}, args...)...)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Credential: nobody}
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // the race detector waits a second at the end of each
	return cmd
}

// copied is a copy of the test binary that nobody may run.
var copied struct {
	once sync.Once
	path string
	err  error
}

func binary(t *testing.T) string {
	t.Helper()
	copied.once.Do(func() {
		dir, err := os.MkdirTemp("", "weir-agent-test")
		if err == nil {
			err = os.Chmod(dir, 0o755)
		}
		b, rerr := os.ReadFile("/proc/self/exe")
		copied.path = filepath.Join(dir, "test")
		copied.err = errors.Join(err, rerr, os.WriteFile(copied.path, b, 0o755))
	})
	if copied.err != nil {
		t.Fatal(copied.err)
	}
	return copied.path
}

// serve starts a server, and returns it when it listens.
func (r *rig) serve(ns, cg, addr string) *exec.Cmd {
	r.t.Helper()
	return r.start(r.command(ns, cg, "serve", addr))
}

// start starts a server that says when it listens.
func (r *rig) start(cmd *exec.Cmd) *exec.Cmd {
	r.t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	b := make([]byte, 100)
	n, _ := out.Read(b)
	if string(b[:n]) != "up\n" {
		r.t.Fatalf("server: %s", b[:n])
	}
	return cmd
}

func (r *rig) get(ns, cg, method, url string) string {
	r.t.Helper()
	out, err := r.command(ns, cg, "get", method, url).CombinedOutput()
	if err != nil {
		r.t.Fatalf("client: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r *rig) setWorkloads(list ...Workload) {
	r.t.Helper()
	if err := r.a.SetWorkloads(list); err != nil {
		r.t.Fatal(err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}
