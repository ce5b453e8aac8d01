//go:build linux && interop

package interop

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-proxy/weir/e2e/internal/binary"
)

// TestDockerCompose runs examples/docker-compose as it is, with Docker's own engine and
// docker-compose: who may, passes; who may not, is refused; containers come and go.
func TestDockerCompose(t *testing.T) {
	binary.NeedKernel(t, weir)
	if os.Getenv(stageVariable) == "" {
		runOnStage(t)
		return
	}
	s := enterStage(t)
	s.image("weir-example-shop", "../../examples/docker-compose/service")
	example, err := filepath.Abs("../../examples/docker-compose")
	if err != nil {
		t.Fatal(err)
	}
	stop := s.startAgent(filepath.Join(example, "agent.yaml"))
	compose := func(args ...string) {
		t.Helper()
		s.run("docker-compose", append([]string{"--project-directory", example, "-f", filepath.Join(example, "compose.yaml")}, args...)...)
	}
	// The name is one thing with docker-compose and another with docker compose.
	container := func(service string) string {
		t.Helper()
		return s.docker("ps", "-a", "--format", "{{.Names}}", "-f", "label=com.docker.compose.project=shop", "-f", "label=com.docker.compose.service="+service)
	}
	compose("up", "-d")

	frontend, intruder, orders := container("frontend"), container("intruder"), container("orders")
	s.logs(frontend, "GET /orders: 200 here you are", "GET /orders/7: 200 here you are", "DELETE /orders/7: 403 Access denied", "GET /admin: 403 Access denied")
	if out := s.logs(intruder, "GET /orders: refused"); strings.Contains(out, "200") {
		t.Errorf("the intruder got through:\n%s", out)
	}
	client := s.address(frontend)
	reached := func() {
		t.Helper()
		for line := range strings.Lines(s.logs(orders, "GET /orders from "+client)) {
			if line != "GET /orders from "+client+"\n" && line != "GET /orders/7 from "+client+"\n" {
				t.Errorf("reached orders: %s", line)
			}
		}
	}
	reached()

	// At first the runtime's processes are in the namespaces, which may do anything.
	var ends map[string]endpoint
	poll(time.Minute, func() bool {
		ends = s.endpoints()
		return ends[frontend].State == "ready" && ends[intruder].State == "ready" && ends[orders].State == "ready"
	})
	for name, service := range map[string]string{frontend: "frontend", intruder: "intruder", orders: "orders"} {
		e := ends[name]
		if e.State != "ready" || !strings.HasPrefix(e.Place, "docker ") {
			t.Errorf("endpoint %s: %+v", name, e)
		}
		for _, want := range []string{"container:name=" + name, "container:image=weir-example-shop", "container:compose.service=" + service, "container:compose.project=shop"} {
			if !slices.Contains(e.Labels, want) {
				t.Errorf("endpoint %s has no label %s: %v", name, want, e.Labels)
			}
		}
	}
	if len(ends) != 3 {
		t.Errorf("endpoints: %v", ends)
	}

	t.Run("records", func(t *testing.T) {
		log := s.agentLog()
		for _, want := range []string{
			`default/` + frontend + `:\d+ .* -> default/` + orders + `:8080 .*http-request FORWARDED \(HTTP/1.1 GET http://orders:8080/orders\)`,
			`default/` + frontend + `:\d+ .* -> default/` + orders + `:8080 .*http-request DROPPED \(HTTP/1.1 DELETE http://orders:8080/orders/7\)`,
			`default/` + intruder + `:\d+ .* -> default/` + orders + `:8080 .*DROPPED`,
		} {
			if !regexp.MustCompile(want).MatchString(log) {
				t.Errorf("no record like %s", want)
			}
		}
	})

	// Labels that only look like docker compose's give nothing.
	t.Run("impostor", func(t *testing.T) {
		const name = "impostor"
		s.docker("run", "-d", "--name", name, "--network", "shop_default", "--cap-drop", "NET_RAW",
			"-l", "com.docker.compose.project=shop", "-l", "com.docker.compose.service=frontend", "-l", "compose.service=frontend",
			"weir-example-shop", "ask", "http://orders:8080", "GET /orders")
		if out := s.logs(name, "GET /orders: refused"); strings.Contains(out, "200") {
			t.Errorf("it got through:\n%s", out)
		}
	})
	// It shares the host's network, and is known by its cgroup.
	t.Run("host network", func(t *testing.T) {
		const name = "on-host"
		s.docker("run", "-d", "--name", name, "--network", "host", "-l", "com.docker.compose.project=shop",
			"weir-example-shop", "ask", "http://"+s.address(orders)+":8080", "GET /orders")
		if out := s.logs(name, "GET /orders: refused"); strings.Contains(out, "200") {
			t.Errorf("it got through:\n%s", out)
		}
		if e := s.endpoints()[name]; e.ID == 0 || e.Reason != "" && e.State == "refused" {
			t.Errorf("endpoint: %+v", e)
		}
		if !regexp.MustCompile(`default/` + name + `:\d+ .* -> default/` + orders + `:8080 .*DROPPED`).MatchString(s.agentLog()) {
			t.Error("no record names it")
		}
	})
	// It joins the frontend's namespace, and is what the frontend is.
	t.Run("shared network", func(t *testing.T) {
		const name = "sidecar"
		s.docker("run", "-d", "--name", name, "--network", "container:"+frontend, "--cap-drop", "NET_RAW",
			"weir-example-shop", "ask", "http://orders:8080", "GET /orders/1", "DELETE /orders/1")
		s.logs(name, "GET /orders/1: 200 here you are", "DELETE /orders/1: 403 Access denied")
		ok := poll(time.Minute, func() bool { return strings.HasSuffix(s.endpoints()[frontend].Place, name) })
		if !ok {
			t.Errorf("endpoint: %+v", s.endpoints()[frontend])
		}
		s.docker("rm", "-f", name)
	})
	t.Run("a container that may leave", func(t *testing.T) {
		const name = "admin"
		s.docker("run", "-d", "--name", name, "--network", "shop_default", "--cap-add", "NET_ADMIN", "-l", "com.docker.compose.project=shop",
			"weir-example-shop", "ask", "http://orders:8080", "GET /orders")
		if !poll(time.Minute, func() bool { return s.endpoints()[name].State == "refused" }) {
			t.Errorf("endpoint: %+v", s.endpoints()[name])
		}
		s.docker("rm", "-f", name)
	})
	t.Run("come and go", func(t *testing.T) {
		s.docker("rm", "-f", "impostor", "on-host")
		compose("stop", "-t", "1", "frontend")
		if !poll(time.Minute, func() bool { return len(s.endpoints()) == 2 }) {
			t.Errorf("endpoints: %v", s.endpoints())
		}
		compose("up", "-d", "--force-recreate", "-t", "1", "frontend", "orders")
		s.logs(container("frontend"), "GET /orders: 200 here you are", "GET /admin: 403 Access denied")
		s.logs(container("intruder"), "GET /orders: refused")
		if !poll(time.Minute, func() bool { return len(s.endpoints()) == 3 }) {
			t.Errorf("endpoints: %v", s.endpoints())
		}
	})
	compose("down", "-t", "1")
	if !poll(time.Minute, func() bool { return len(s.endpoints()) == 0 }) {
		t.Errorf("endpoints are left: %v", s.endpoints())
	}
	held := s.held()
	stop()
	if left := stillThere(held); len(left) > 0 {
		t.Errorf("left in the kernel: %v", left)
	}
}

// firstActPolicy lets containers with the label go nowhere.
const firstActPolicy = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: nowhere}
spec:
  endpointSelector: {matchLabels: {"container:first": "yes"}}
  egress:
  - toCIDR: [192.0.2.0/24]
`

// TestDockerFirstAct starts containers whose first act is to connect where they may not,
// and measures how long before it they were under policy.
func TestDockerFirstAct(t *testing.T) {
	binary.NeedKernel(t, weir)
	if os.Getenv(stageVariable) == "" {
		runOnStage(t)
		return
	}
	s := enterStage(t)
	s.image("first", "./docker-first")
	for name, text := range map[string]string{
		"policy.yaml": firstActPolicy,
		"agent.yaml":  "policies: [policy.yaml]\ndiscover: {docker: {labels: {first: \"yes\"}}}\n",
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var accepted atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	target := "172.17.0.1:" + port
	if gateway := s.docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"); gateway != "" {
		target = gateway + ":" + port
	}
	s.startAgent(filepath.Join(s.dir, "agent.yaml"))

	// One without the label: the target can be reached.
	s.docker("run", "-d", "--name", "free", "first", target)
	free := regexp.MustCompile(`(?m)^\d+ open$`)
	if !poll(time.Minute, func() bool { return free.MatchString(s.docker("logs", "free")) }) {
		t.Fatalf("nobody reaches the target: %s", s.docker("logs", "free"))
	}

	const containers, atOnce = 50, 3
	name := func(i int) string { return fmt.Sprintf("first-%d", i) }
	next := make(chan int)
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := range next {
				s.docker("run", "-d", "--name", name(i), "-l", "first=yes", "first", target)
				s.docker("wait", name(i))
			}
		})
	}
	for i := range containers {
		next <- i
	}
	close(next)
	wg.Wait()

	log := s.agentLog()
	var margins []time.Duration
	for i := range containers {
		out := s.docker("logs", name(i))
		began, what, _ := strings.Cut(out, " ")
		ns, err := strconv.ParseInt(began, 10, 64)
		if err != nil {
			t.Fatalf("%s printed %q", name(i), out)
		}
		if what == "open" {
			t.Errorf("%s connected before it was under policy", name(i))
		} else if what != "connection refused" {
			t.Errorf("%s: %s", name(i), what)
		}
		m := regexp.MustCompile(`time=(\S+) .*"workload is under policy" workload=default/` + name(i) + ` `).FindStringSubmatch(log)
		if m == nil {
			t.Errorf("%s was never under policy", name(i))
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, m[1])
		if err != nil {
			t.Fatal(err)
		}
		margins = append(margins, time.Unix(0, ns).Sub(at))
	}
	if n := accepted.Load(); n != 1 {
		t.Errorf("%d connections reached the target, want only that of the one without the label", n)
	}
	if len(margins) > 0 {
		slices.Sort(margins)
		t.Logf("under policy before the first connect of %d containers: at least %v, median %v, at most %v",
			len(margins), margins[0].Round(time.Millisecond), margins[len(margins)/2].Round(time.Millisecond), margins[len(margins)-1].Round(time.Millisecond))
	}
}
