//go:build linux && interop

// Package interop runs clients that others wrote, unchanged, under weir run and
// through weir gateway.
package interop

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/e2e/internal/binary"
	"github.com/weir-proxy/weir/e2e/internal/origin"
)

const policy = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: interop}
spec:
  endpointSelector: {}
  egress:
  - toEntities: [host]
    toPorts:
    - ports: [{port: "%d", protocol: TCP}]
      rules:
        http:
        - {method: "GET|HEAD", path: "/public([/?].*)?"}
        - {method: GET, path: "/download/.*"}
        - {method: POST, path: "/upload"}
`

var weir string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "client-") {
		clientMain(os.Args[1], os.Args[2:])
		return
	}
	os.Exit(func() int {
		binary.ForgetSudo()
		var err error
		// Not the race detector's build: these tests bound weir's memory.
		if weir, err = binary.Build(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(filepath.Dir(weir))
		return m.Run()
	}())
}

// What every client reports after its steps; testdata/ has one program each.
const steps = `get 200 GET /public
denied 403 Access denied
post 200 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
chunked 200 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
head 200
again 200 GET /public?again
`

const curlSteps = `expect 200 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
expect-denied 403 Access denied
keep-alive 200/1 403/0 200/0
`

func TestClients(t *testing.T) {
	data, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	seen := []string{"GET /public", "POST /upload", "POST /upload", "HEAD /public", "GET /public?again"}
	for _, c := range []struct {
		name    string
		command []string
		want    string
		seen    []string
	}{
		{"curl", []string{"sh", filepath.Join(data, "curl.sh")}, steps + curlSteps, append(seen, "POST /upload", "GET /public", "GET /public")},
		{"python", []string{"/usr/bin/python3", filepath.Join(data, "client.py")}, steps, seen},
		{"requests", []string{"/usr/bin/python3", filepath.Join(data, "with_requests.py")}, steps, seen},
		{"go", []string{self, "client-steps"}, steps, seen},
		{"node", []string{"node", filepath.Join(data, "client.mjs")}, steps, seen},
		{"java", []string{"java", filepath.Join(data, "Client.java")}, steps, seen},
	} {
		eachWay(t, c.name, func(t *testing.T, launch launcher) {
			web := startOrigin(t)
			out, _ := launch(t, web.Port, c.command...)
			var got []string
			for line := range strings.Lines(out) {
				got = append(got, strings.TrimSpace(line))
			}
			if diff := cmp.Diff(strings.Split(strings.TrimSpace(c.want), "\n"), got); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
			var reached []string
			for _, r := range web.Requests() {
				reached = append(reached, r.Method+" "+r.Target)
			}
			if diff := cmp.Diff(c.seen, reached); diff != "" {
				t.Errorf("what reached the origin (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWrk(t *testing.T) {
	eachWay(t, "wrk", func(t *testing.T, launch launcher) {
		web := startOrigin(t)
		script := `wrk -t1 -c16 -d2s http://$1/public; echo; wrk -t1 -c16 -d2s http://$1/denied`
		out, _ := launch(t, web.Port, "sh", "-c", script, "sh")
		allowed, denied, _ := strings.Cut(out, "\n\n")
		if strings.Contains(out, "Socket errors") {
			t.Errorf("connections failed:\n%s", out)
		}
		if strings.Contains(allowed, "Non-2xx") || !strings.Contains(allowed, "requests in") {
			t.Errorf("not every allowed request was answered by the origin:\n%s", allowed)
		}
		if wrkCount(t, denied, `(\d+) requests in`) != wrkCount(t, denied, `Non-2xx or 3xx responses: (\d+)`) {
			t.Errorf("not every denied request was refused:\n%s", denied)
		}
		for _, r := range web.Requests() {
			if r.Target != "/public" {
				t.Fatalf("%s %s reached the origin", r.Method, r.Target)
			}
		}
	})
}

// wrkCount is the number a pattern finds in wrk's report.
func wrkCount(t *testing.T, report, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(report)
	if m == nil {
		t.Fatalf("no %q in:\n%s", pattern, report)
	}
	return m[1]
}

// launcher runs a command whose last argument will be the origin's HOST:PORT as
// the command is to ask for it. It returns the command's output and the most
// memory that weir had in its hands, in bytes.
type launcher func(t *testing.T, port int, command ...string) (out string, peak int64)

func eachWay(t *testing.T, name string, f func(*testing.T, launcher)) {
	t.Run(name+"/run", func(t *testing.T) {
		binary.NeedKernel(t, weir)
		f(t, underRun)
	})
	t.Run(name+"/gateway", func(t *testing.T) { f(t, throughGateway) })
}

const commandTimeout = 5 * time.Minute

func underRun(t *testing.T, port int, command ...string) (string, int64) {
	dir := t.TempDir()
	args := append([]string{"run", "--policy", writePolicy(t, dir, port), "--log", filepath.Join(dir, "records"), "--",
		"sh", "-c", `"$@" && echo "peak $(grep VmHWM /proc/$PPID/status)" >&2`, "sh"}, command...)
	cmd := exec.CommandContext(t.Context(), weir, append(args, fmt.Sprintf("127.0.0.1:%d", port))...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	timer := time.AfterFunc(commandTimeout, func() { cmd.Process.Signal(syscall.SIGTERM) })
	defer timer.Stop()
	if err := cmd.Run(); err != nil {
		records, _ := os.ReadFile(filepath.Join(dir, "records"))
		t.Fatalf("%v: %v\n%s\n%s\nlast records:\n%s", command, err, stdout.String(), stderr.String(), tail(records))
	}
	_, status, _ := strings.Cut(stderr.String(), "peak ")
	return stdout.String(), vmHWM(t, status)
}

func throughGateway(t *testing.T, port int, command ...string) (string, int64) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := l.Addr().String()
	l.Close()
	gateway := exec.Command(weir, "gateway", "--policy", writePolicy(t, dir, port), "--log", filepath.Join(dir, "records"),
		"--listen", listen, "--to", fmt.Sprintf("127.0.0.1:%d", port), "--from", "app=interop")
	var stderr bytes.Buffer
	gateway.Stderr = &stderr
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		gateway.Process.Signal(syscall.SIGTERM)
		gateway.Wait()
	}()
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", listen)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("gateway does not listen: %v: %s", err, stderr.String())
		}
	}
	cmd := exec.CommandContext(t.Context(), command[0], append(command[1:], listen)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		records, _ := os.ReadFile(filepath.Join(dir, "records"))
		t.Fatalf("%v: %v\n%s\n%s\nlast records:\n%s", command, err, out, stderr.String(), tail(records))
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", gateway.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(out), vmHWM(t, string(status))
}

func writePolicy(t *testing.T, dir string, port int) string {
	t.Helper()
	file := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, policy, port), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func startOrigin(t *testing.T) *origin.Server {
	t.Helper()
	s, err := origin.Start("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// vmHWM reads the line of proc_pid_status(5) that gives the peak resident set.
func vmHWM(t *testing.T, status string) int64 {
	t.Helper()
	_, after, _ := strings.Cut(status, "VmHWM:")
	f := strings.Fields(after)
	if len(f) < 2 || f[1] != "kB" {
		t.Fatalf("no VmHWM in %q", status)
	}
	n, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

func tail(b []byte) []byte { return b[max(0, len(b)-2000):] }
