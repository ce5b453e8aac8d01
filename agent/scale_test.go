//go:build linux && !race

// What the race detector costs would hide what is measured here: make test runs these
// without it.

package agent

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// many is how many namespaces a node is expected to hold.
const many = 1000

// rss is this process's resident memory, in bytes.
func rss(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return n * os.Getpagesize()
}

// A thousand namespaces are under policy in a moment, in little memory, and leave
// nothing when they go.
func TestScaleNamespaces(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	var list []Workload
	paths := make([]string, many)
	defer func() {
		for _, p := range paths {
			unix.Unmount(p, unix.MNT_DETACH)
		}
	}()
	for i := range many {
		paths[i] = filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(paths[i], nil, 0o600); err != nil {
			t.Fatal(err)
		}
		bindNamespace(t, paths[i])
		list = append(list, Workload{Name: fmt.Sprintf("default/w%d", i), Labels: labels(t, "app=frontend"), Netns: paths[i]})
	}
	r.setPolicies(frontendToServer)
	runtime.GC()
	goroutines, files, memory := runtime.NumGoroutine(), descriptors(t), rss(t)
	begin := time.Now()
	r.setWorkloads(list...)
	t.Logf("%d namespaces under policy after %v, %d MiB more", many, time.Since(begin), (rss(t)-memory)>>20)
	if d := time.Since(begin); d > 3*time.Second {
		t.Errorf("it took %v", d)
	}
	if m := rss(t); m > 200<<20 {
		t.Errorf("resident: %d MiB", m>>20)
	}
	for _, p := range paths {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "all to be forgotten", func() bool {
		r.a.sweep()
		r.a.mu.Lock()
		defer r.a.mu.Unlock()
		return len(r.a.byID) == 0
	})
	waitFor(t, "goroutines and descriptors to be gone", func() bool {
		return runtime.NumGoroutine() <= goroutines+5 && descriptors(t) <= files+5
	})
}

// A thousand namespaces come and go in batches while a server and its client run: each
// is under policy while it is there, and nothing of them is left.
func TestScaleComeAndGo(t *testing.T) {
	const batch = 125
	r := newRig(t)
	server, frontend := namespace(t), namespace(t)
	join(t, server, frontend, "10.98.0.1", "10.98.0.2", 1)
	r.setPolicies(frontendToServer)
	stay := []Workload{
		{Name: "default/server", Labels: labels(t, "app=server"), Netns: server},
		{Name: "default/frontend", Labels: labels(t, "app=frontend"), Netns: frontend},
	}
	r.setWorkloads(stay...)
	r.serve(server, r.cg, ":8080")
	_, ended := r.holding(frontend, "10.98.0.1:8080", 10)
	dir := t.TempDir()
	paths := make([]string, batch)
	for i := range paths {
		paths[i] = filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(paths[i], nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		for _, p := range paths {
			unix.Unmount(p, unix.MNT_DETACH)
		}
	}()
	cycle := func() {
		t.Helper()
		list := slices.Clone(stay)
		for i, p := range paths {
			bindNamespace(t, p)
			join(t, server, p, "10.98.0.1", fmt.Sprintf("10.98.1.%d", i+1), i+2)
			list = append(list, Workload{Name: fmt.Sprintf("default/w%d", i), Labels: labels(t, "app=frontend"), Netns: p})
		}
		r.setWorkloads(list...)
		for _, s := range r.a.Status().Endpoints {
			if s.State != Ready {
				t.Fatalf("status %+v", s)
			}
		}
		one := paths[len(paths)-1]
		if got := r.get(one, r.cg, "GET", "http://10.98.0.1:8080/"); !strings.HasPrefix(got, "200 ") {
			t.Errorf("GET: %s", got)
		}
		if got := r.get(one, r.cg, "POST", "http://10.98.0.1:8080/"); got != "403 Access denied" {
			t.Errorf("POST: %s", got)
		}
		for _, p := range paths {
			if err := unix.Unmount(p, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
		waitFor(t, "all to be forgotten", func() bool {
			r.a.sweep()
			r.a.mu.Lock()
			defer r.a.mu.Unlock()
			return len(r.a.byID) == len(stay)
		})
		// One that somebody holds keeps its veth.
		waitFor(t, "the namespaces to be gone", func() bool { return links(t, server) == 2 })
		r.mu.Lock()
		r.records = nil // the test's own memory
		r.mu.Unlock()
	}
	cycle() // what is needed once
	before := r.leavings()
	debug.FreeOSMemory()
	memory := rss(t)
	for range many / batch {
		cycle()
	}
	r.nothingMore(before)
	debug.FreeOSMemory()
	const margin = 8 << 20
	after := rss(t)
	t.Logf("resident: %d KiB before, %d KiB after", memory>>10, after>>10)
	if after > memory+margin {
		t.Errorf("resident: %d KiB more", (after-memory)>>10)
	}
	select {
	case <-ended:
		t.Error("the client that stayed lost a connection")
	default:
	}
	if got := r.get(frontend, r.cg, "GET", "http://10.98.0.1:8080/"); !strings.HasPrefix(got, "200 ") {
		t.Errorf("the one that stayed: %s", got)
	}
}

// Ten thousand connections that do nothing cost little.
func TestScaleIdle(t *testing.T) {
	const each = 12 << 10
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	conns := min(10000, (int(limit.Max)-500)/2) // two descriptors each
	r := newRig(t)
	server, frontend := namespace(t), namespace(t)
	join(t, server, frontend, "10.98.0.1", "10.98.0.2", 1)
	r.setPolicies(frontendToServer)
	r.setWorkloads(
		Workload{Name: "default/server", Labels: labels(t, "app=server"), Netns: server},
		Workload{Name: "default/frontend", Labels: labels(t, "app=frontend"), Netns: frontend},
	)
	r.serve(server, r.cg, ":8080")
	r.get(frontend, r.cg, "GET", "http://10.98.0.1:8080/") // what is needed once
	debug.FreeOSMemory()
	before := rss(t)
	cmd := r.command(frontend, r.cg, "hold", "10.98.0.1:8080", strconv.Itoa(conns))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	said, _ := bufio.NewReader(out).ReadString('\n')
	if said != "held\n" {
		t.Fatalf("client: %s", said)
	}
	r.mu.Lock()
	r.records = nil // the test's own memory
	r.mu.Unlock()
	debug.FreeOSMemory()
	per := (rss(t) - before) / conns
	t.Logf("%d bytes for each of %d idle connections", per, conns)
	if per > each {
		t.Errorf("more than %d", each)
	}
}
