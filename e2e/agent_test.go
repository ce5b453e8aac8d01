//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"

	"github.com/weir-proxy/weir/agent"
	"github.com/weir-proxy/weir/e2e/internal/binary"
	"github.com/weir-proxy/weir/e2e/internal/origin"
	"github.com/weir-proxy/weir/e2e/internal/traces"
)

// getOnly lets the frontend GET from orders. Verbs: method.
const getOnly = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: orders, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: orders}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: frontend}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{method: %s}]}
`

// shop is three namespaces on a bridge: frontend, orders and neighbour.
type shop struct {
	name string // what the names of the namespaces begin with
}

var shops atomic.Int32

const (
	frontendAddr = "198.19.0.10"
	ordersAddr   = "198.19.0.11"
	ordersAddr6  = "fd57:e2::11"
)

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{fmt.Sprintf("weir-e2e-%d-shop%d", os.Getpid(), shops.Add(1))}
	ip := func(format string, args ...any) {
		t.Helper()
		line := strings.Fields(fmt.Sprintf(format, args...))
		if out, err := exec.Command("ip", line...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", line, err, out)
		}
	}
	add := func(name string) string {
		name = s.netns(name)
		t.Cleanup(func() { exec.Command("ip", "netns", "delete", name).Run() })
		ip("netns add %s", name)
		return name
	}
	// The bridge has a namespace of its own: nothing of this is seen outside.
	bridge := add("bridge")
	ip("-n %s link add br0 type bridge", bridge)
	ip("-n %s link set br0 up", bridge)
	for i, name := range []string{"frontend", "orders", "neighbour"} {
		ns := add(name)
		ip("-n %s link add eth0 type veth peer name %s netns %s", ns, name, bridge)
		ip("-n %s link set %s master br0 up", bridge, name)
		ip("-n %s addr add 198.19.0.%d/24 dev eth0", ns, 10+i)
		ip("-n %s addr add fd57:e2::%d/64 dev eth0 nodad", ns, 10+i)
		ip("-n %s link set eth0 up", ns)
		ip("-n %s link set lo up", ns)
	}
	return s
}

func (s *shop) netns(name string) string { return s.name + "-" + name }

// in runs f on a thread in one of the namespaces; sockets that f makes stay there.
func (s *shop) in(t *testing.T, name string, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.GetFromName(s.netns(name))
		if err == nil {
			err = netns.Set(ns)
			ns.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("in namespace %s: %v", name, err)
	}
}

// orders starts the web service of the shop.
func (s *shop) orders(t *testing.T) *origin.Server {
	t.Helper()
	var o *origin.Server
	s.in(t, "orders", func() (err error) {
		o, err = origin.StartAt(8080, "::")
		return err
	})
	t.Cleanup(func() { o.Close() })
	return o
}

// client is a connection that requests are made on one after the other.
type client struct {
	conn  net.Conn
	reply *bufio.Reader
}

func (s *shop) dial(t *testing.T, from, to string) (c *client, err error) {
	t.Helper()
	s.in(t, from, func() error {
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp", to, getTimeout); err == nil {
			c = &client{conn, bufio.NewReader(conn)}
			t.Cleanup(func() { conn.Close() })
		}
		return nil
	})
	return c, err
}

// do makes one request and returns the status of its answer, or how it failed.
func (c *client) do(method, path string) string {
	req, err := http.NewRequest(method, "http://orders"+path, nil)
	if err != nil {
		return err.Error()
	}
	c.conn.SetDeadline(time.Now().Add(getTimeout))
	if err := req.Write(c.conn); err != nil {
		return outcome(err)
	}
	resp, err := http.ReadResponse(c.reply, req)
	if err != nil {
		return outcome(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return outcome(err)
	}
	return fmt.Sprint(resp.StatusCode)
}

func outcome(err error) string {
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
		return "refused"
	}
	return "failed: " + err.Error()
}

// ask makes one request on a connection of its own.
func (s *shop) ask(t *testing.T, from, method, host string) string {
	t.Helper()
	c, err := s.dial(t, from, net.JoinHostPort(host, "8080"))
	if err != nil {
		return outcome(err)
	}
	defer c.conn.Close()
	return c.do(method, "/"+from)
}

// weirAgent is a running agent.
type weirAgent struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	ended  chan error
	stderr lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startAgent starts an agent of the configuration in a directory, and waits until it
// answers.
func startAgent(t *testing.T, dir string) *weirAgent {
	t.Helper()
	a := &weirAgent{t: t, dir: dir, ended: make(chan error, 1)}
	return a.start(&a.stderr)
}

func (a *weirAgent) start(stderr io.Writer) *weirAgent {
	t := a.t
	t.Helper()
	a.cmd = exec.Command(weirBinary, "agent", "--config", filepath.Join(a.dir, "agent.yaml"))
	a.cmd.Stderr = stderr
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		a.ended <- a.cmd.Wait()
		close(a.ended)
	}()
	t.Cleanup(func() {
		a.cmd.Process.Signal(syscall.SIGTERM) // so that it leaves nothing
		select {
		case <-a.ended:
		case <-time.After(30 * time.Second):
			a.cmd.Process.Kill()
		}
		if t.Failed() {
			t.Logf("agent:\n%s", a.stderr.String())
		}
	})
	a.until("the agent answers", func() bool {
		select {
		case err := <-a.ended:
			t.Fatalf("the agent has ended: %v\n%s", err, a.stderr.String())
		default:
		}
		return exec.Command(weirBinary, "status", "--socket", a.socket()).Run() == nil
	})
	return a
}

func (a *weirAgent) socket() string { return filepath.Join(a.dir, "agent.sock") }

func (a *weirAgent) until(what string, cond func() bool) {
	a.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			a.t.Fatalf("not in time: %s\n%s", what, a.stderr.String())
		}
		time.Sleep(20 * time.Millisecond) // between two looks at the condition
	}
}

// weir runs a command that asks the agent.
func (a *weirAgent) weir(args ...string) string {
	a.t.Helper()
	cmd := exec.Command(weirBinary, append(args, "--socket", a.socket())...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		a.t.Fatalf("weir %v: %v", args, err)
	}
	return string(out)
}

func (a *weirAgent) status() agent.Status {
	a.t.Helper()
	var s agent.Status
	if err := json.Unmarshal([]byte(a.weir("status", "-o", "json")), &s); err != nil {
		a.t.Fatal(err)
	}
	return s
}

// stop ends the agent as an operator does.
func (a *weirAgent) stop() {
	a.t.Helper()
	a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-a.ended:
		if err != nil {
			a.t.Fatalf("the agent ended with %v\n%s", err, a.stderr.String())
		}
	case <-time.After(30 * time.Second):
		a.t.Fatalf("the agent does not end\n%s", a.stderr.String())
	}
	if left, _ := filepath.Glob(a.socket() + "*"); len(left) > 0 {
		a.t.Errorf("left behind: %v", left)
	}
}

// configure writes the configuration of a shop into a new directory.
func (s *shop) configure(t *testing.T, neighbour string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "policies"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.writeConfig(t, dir, neighbour)
	writePolicy(t, dir, fmt.Sprintf(getOnly, "GET"))
	return dir
}

func (s *shop) writeConfig(t *testing.T, dir, neighbour string) {
	t.Helper()
	text := fmt.Sprintf(`policies: [policies]
workloads:
- {name: frontend, namespace: shop, labels: {app: frontend}, netns: %s}
- {name: orders, namespace: shop, labels: {app: orders}, netns: %s}
- {name: neighbour, namespace: shop, labels: {app: %s}, netns: %s}
log: {file: records}
socket: agent.sock
`, s.netns("frontend"), s.netns("orders"), neighbour, s.netns("neighbour"))
	if err := os.WriteFile(filepath.Join(dir, "agent.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// writePolicy replaces the policy as an editor does.
func writePolicy(t *testing.T, dir, text string) {
	t.Helper()
	path := filepath.Join(dir, "policies", "orders.yaml")
	if err := os.WriteFile(path+"~", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}

// TestAgent is the life of an agent: two services and a neighbour, policies that change
// and break, a configuration that changes, and an end that leaves nothing.
func TestAgent(t *testing.T) {
	binary.NeedKernel(t, weirBinary)
	before, err := traces.Now()
	if err != nil {
		t.Fatal(err)
	}
	s := newShop(t)
	orders := s.orders(t)
	dir := s.configure(t, "neighbour")
	a := startAgent(t, dir)

	check := func(when string, want map[string]string) {
		t.Helper()
		got := map[string]string{}
		for who := range want {
			from, method, _ := strings.Cut(who, " ")
			for _, host := range []string{ordersAddr, ordersAddr6} {
				answer := s.ask(t, from, method, host)
				if host == ordersAddr6 && answer != got[who] {
					answer = got[who] + ", but IPv6 " + answer
				}
				got[who] = answer
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", when, d)
		}
	}
	getOnlyWant := map[string]string{"frontend GET": "200", "frontend POST": "403", "neighbour GET": "refused"}
	check("at first", getOnlyWant)
	for _, r := range orders.Requests() {
		if a := r.Remote.Addr().Unmap(); a != netip.MustParseAddr(frontendAddr) && a != netip.MustParseAddr("fd57:e2::10") {
			t.Errorf("%s %s came from %v", r.Method, r.Target, r.Remote)
		}
	}
	checkRecords(t, a)

	if out, err := exec.Command(weirBinary, "agent", "--config", filepath.Join(dir, "agent.yaml")).CombinedOutput(); err == nil ||
		!strings.Contains(string(out), fmt.Sprintf("an agent runs already (pid %d)", a.cmd.Process.Pid)) {
		t.Errorf("a second agent: %v\n%s", err, out)
	}

	// The next request on an open connection is judged by the new policy.
	open, err := s.dial(t, "frontend", ordersAddr+":8080")
	if err != nil {
		t.Fatal(err)
	}
	if got := open.do("GET", "/open"); got != "200" {
		t.Errorf("GET: %s", got)
	}
	revision := a.status().Policy.Revision
	writePolicy(t, dir, fmt.Sprintf(getOnly, "POST"))
	a.until("the new policy is in force", func() bool { return a.status().Policy.Revision > revision })
	if get, post := open.do("GET", "/open"), open.do("POST", "/open"); get != "403" || post != "200" {
		t.Errorf("on the open connection: GET %s, POST %s", get, post)
	}
	check("with POST allowed", map[string]string{"frontend GET": "403", "frontend POST": "200", "neighbour GET": "refused"})
	if log := a.stderr.String(); !strings.Contains(log, "changed=shop/orders") {
		t.Errorf("the change is not in the log")
	}

	// A broken file changes nothing and is named.
	revision = a.status().Policy.Revision
	writePolicy(t, dir, strings.ReplaceAll(getOnly, "method: %s", "methud: GET"))
	a.until("the broken file is named", func() bool { return strings.Contains(a.status().Policy.Error, "orders.yaml:10:23: ") })
	check("with a broken file", map[string]string{"frontend GET": "403", "frontend POST": "200", "neighbour GET": "refused"})
	if s := a.status(); s.Policy.Revision != revision || s.Policy.Since.IsZero() {
		t.Errorf("revision %d, %d before the file broke, since %v", s.Policy.Revision, revision, s.Policy.Since)
	}
	if text := a.weir("status"); !strings.Contains(text, "NOT IN FORCE") || !strings.Contains(text, "did you mean method?") {
		t.Errorf("weir status:\n%s", text)
	}
	writePolicy(t, dir, fmt.Sprintf(getOnly, "GET"))
	a.until("the file put right is in force", func() bool { return a.status().Policy.Error == "" })
	check("with the file put right", getOnlyWant)

	// Another label for the neighbour, by SIGHUP.
	s.writeConfig(t, dir, "frontend")
	a.cmd.Process.Signal(syscall.SIGHUP)
	a.until("the new configuration is in force", func() bool { return strings.Contains(a.stderr.String(), "configuration is in force") })
	check("with another label", map[string]string{"frontend GET": "200", "neighbour GET": "200", "neighbour POST": "403"})

	// A workload that goes and comes back under its name.
	neighbour := s.netns("neighbour")
	for _, line := range []string{"netns delete " + neighbour, "netns add " + neighbour} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", line, err, out)
		}
		want := agent.Ready
		if strings.Contains(line, "delete") {
			want = agent.Waiting
		}
		a.until(line+": "+string(want), func() bool {
			for _, e := range a.status().Endpoints {
				if e.Name == "shop/neighbour" && e.State != want {
					return false
				}
			}
			return true
		})
	}

	a.stop()
	check("without an agent", map[string]string{"frontend GET": "200", "frontend POST": "200"})
	if left, err := traces.Left(before); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v\n%s", err, strings.Join(left, "\n"))
	}
}

// checkRecords looks at what the agent has written so far, in the log and to those who
// ask: every decision names both ends.
func checkRecords(t *testing.T, a *weirAgent) {
	t.Helper()
	type record struct {
		Verdict             string
		Type                string
		Direction           string
		Source, Destination struct {
			Name, Address string
			Identity      int
		}
		Policy, Reason string
	}
	parse := func(text string) (list []record) {
		for line := range strings.Lines(text) {
			var r record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			list = append(list, r)
		}
		return list
	}
	for filter, want := range map[string]struct{ n int }{
		"--verdict FORWARDED --type http --to shop/orders": {2},
		"--verdict DROPPED --from shop/frontend":           {2},
		"--verdict DROPPED --from shop/neighbour":          {2},
		"--from world": {0},
		"--to world":   {0},
		"--from host":  {0},
	} {
		list := parse(a.weir(append([]string{"observe", "--last", "1000", "-o", "json"}, strings.Fields(filter)...)...))
		if len(list) != want.n {
			t.Errorf("%s: %d records, want %d", filter, len(list), want.n)
		}
		for _, r := range list {
			if r.Source.Identity < 256 || r.Destination.Name != "shop/orders" || r.Destination.Identity < 256 || r.Policy == "" && r.Reason == "" {
				t.Errorf("%s: %+v", filter, r)
			}
		}
	}
	log, err := os.ReadFile(filepath.Join(a.dir, "records"))
	if want := a.weir("observe", "--last", "1000"); err != nil || string(log) != want {
		t.Errorf("the log and weir observe differ: %v\n%s\n%s", err, log, want)
	}
}

// TestAgentObserve follows the records while requests are made, and is told the end.
func TestAgentObserve(t *testing.T) {
	binary.NeedKernel(t, weirBinary)
	s := newShop(t)
	s.orders(t)
	a := startAgent(t, s.configure(t, "neighbour"))
	cmd := exec.Command(weirBinary, "observe", "-f", "--last", "1000", "--type", "http", "--socket", a.socket())
	var stderr lockedBuffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	lines := bufio.NewReader(out)
	for _, method := range []string{"GET", "POST", "GET"} {
		s.ask(t, "frontend", method, ordersAddr)
		line, err := lines.ReadString('\n')
		if err != nil || !strings.Contains(line, "(HTTP/1.1 "+method+" http://orders/frontend)") || !strings.Contains(line, "shop/frontend:") {
			t.Fatalf("%s: %q, %v", method, line, err)
		}
	}
	a.stop()
	if rest, err := lines.ReadString('\n'); rest != "" {
		t.Errorf("%q, %v", rest, err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "the agent has stopped") {
		t.Errorf("weir observe: %v, %s", err, stderr.String())
	}
}

// TestAgentKilled: what needs a proxy is refused while there is none, and the next agent
// takes over what the dead one left.
func TestAgentKilled(t *testing.T) {
	binary.NeedKernel(t, weirBinary)
	before, err := traces.Now()
	if err != nil {
		t.Fatal(err)
	}
	s := newShop(t)
	orders := s.orders(t)
	dir := s.configure(t, "neighbour")
	t.Cleanup(func() {
		if t.Failed() { // the pins of a killed agent stay until one sweeps them up
			startAgent(t, dir).stop()
		}
	})
	for range 2 {
		a := startAgent(t, dir)
		if got := s.ask(t, "frontend", "GET", ordersAddr); got != "200" {
			t.Errorf("GET: %s", got)
		}
		open, err := s.dial(t, "frontend", ordersAddr+":8080")
		if err != nil {
			t.Fatal(err)
		}
		if got := open.do("GET", "/open"); got != "200" {
			t.Errorf("GET: %s", got)
		}
		orders.Reset()
		a.cmd.Process.Kill()
		<-a.ended
		for _, who := range []string{"frontend", "neighbour"} {
			for _, host := range []string{ordersAddr, ordersAddr6} {
				if got := s.ask(t, who, "GET", host); got == "200" {
					t.Errorf("GET of %s from %s: %s, while no agent lives", who, host, got)
				}
			}
		}
		if got := open.do("GET", "/open"); got == "200" {
			t.Error("an open connection goes on while no agent lives")
		}
		if reached := orders.Requests(); len(reached) > 0 {
			t.Errorf("reached the server: %v", reached)
		}
	}
	a := startAgent(t, dir)
	if get, post, other := s.ask(t, "frontend", "GET", ordersAddr), s.ask(t, "frontend", "POST", ordersAddr), s.ask(t, "neighbour", "GET", ordersAddr); get != "200" || post != "403" || other != "refused" {
		t.Errorf("after a dead agent: GET %s, POST %s, GET of the neighbour %s", get, post, other)
	}
	a.stop()
	if left, err := traces.Left(before); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v\n%s", err, strings.Join(left, "\n"))
	}
}

// TestAgentWithoutReader: an agent outlives whoever reads its notes.
func TestAgentWithoutReader(t *testing.T) {
	binary.NeedKernel(t, weirBinary)
	s := newShop(t)
	s.orders(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	a := &weirAgent{t: t, dir: s.configure(t, "neighbour"), ended: make(chan error, 1)}
	a.start(w)
	w.Close()
	r.Close()
	writePolicy(t, a.dir, fmt.Sprintf(getOnly, "POST"))
	a.until("the new policy is in force", func() bool { return a.status().Policy.Revision > 1 })
	if get, post := s.ask(t, "frontend", "GET", ordersAddr), s.ask(t, "frontend", "POST", ordersAddr); get != "403" || post != "200" {
		t.Errorf("GET %s, POST %s", get, post)
	}
	a.stop()
}
