//go:build linux

package agent

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// leavings is what a workload could leave behind in this process and in the kernel.
type leavings struct {
	descriptors, goroutines, pins int
	entries                       map[string]int // by map
}

// leavings looks. The maps are found by this process's descriptors; those of them whose
// entries are sockets' own go with the sockets.
func (r *rig) leavings() leavings {
	r.t.Helper()
	l := leavings{descriptors: descriptors(r.t), goroutines: runtime.NumGoroutine(), entries: map[string]int{}}
	pins, err := filepath.Glob(filepath.Join(r.bpffs, "weir", "*", "steer-*"))
	if err != nil {
		r.t.Fatal(err)
	}
	l.pins = len(pins)
	infos, _ := filepath.Glob("/proc/self/fdinfo/*")
	for _, path := range infos {
		b, _ := os.ReadFile(path)
		_, rest, ok := bytes.Cut(b, []byte("map_id:\t"))
		if !ok {
			continue
		}
		text, _, _ := bytes.Cut(rest, []byte("\n"))
		id, err := strconv.Atoi(string(text))
		if err != nil {
			r.t.Fatal(err)
		}
		m, err := ebpf.NewMapFromID(ebpf.MapID(id))
		if err != nil {
			r.t.Fatal(err)
		}
		info, err := m.Info()
		if err != nil {
			r.t.Fatal(err)
		}
		switch m.Type() {
		case ebpf.Hash, ebpf.LPMTrie, ebpf.SockHash:
			l.entries[info.Name] += entries(m)
		}
		m.Close()
	}
	return l
}

func entries(m *ebpf.Map) (n int) {
	var prev any
	for k := make([]byte, m.KeySize()); m.NextKey(prev, &k) == nil; n++ {
		prev = bytes.Clone(k)
	}
	return n
}

// nothingMore waits, sweeping, until there is no more than before.
func (r *rig) nothingMore(before leavings) {
	r.t.Helper()
	var now leavings
	var what string
	defer func() {
		if r.t.Failed() {
			r.t.Logf("%s: before %+v, now %+v", what, before, now)
		}
	}()
	waitFor(r.t, "everything to be gone", func() bool {
		r.a.sweep()
		now = r.leavings()
		what = ""
		switch {
		case now.descriptors > before.descriptors:
			what = "descriptors"
		case now.goroutines > before.goroutines:
			what = "goroutines"
		case now.pins > before.pins:
			what = "pins"
		}
		for name, n := range now.entries {
			if n > before.entries[name] {
				what = name
			}
		}
		return what == ""
	})
}

// holding starts a client that holds connections, each of which has had an answer. When
// the first ends, ended is closed.
func (r *rig) holding(ns, addr string, conns int) (_ *exec.Cmd, ended <-chan struct{}) {
	r.t.Helper()
	cmd := r.command(ns, r.cg, "hold", addr, strconv.Itoa(conns))
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	said := bufio.NewReader(out)
	if l, _ := said.ReadString('\n'); l != "held\n" {
		r.t.Fatalf("client: %s", l)
	}
	end := make(chan struct{})
	go func() { said.ReadString('\n'); close(end) }()
	return cmd, end
}

// links counts the network devices of a namespace.
func links(t *testing.T, ns string) (n int) {
	t.Helper()
	inside(t, ns, func() error {
		list, err := netlink.LinkList()
		for errors.Is(err, netlink.ErrDumpInterrupted) {
			list, err = netlink.LinkList()
		}
		n = len(list)
		return err
	})
	return n
}

const frontendOut = `---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: frontend}
spec:
  endpointSelector: {matchLabels: {app: frontend}}
  egress:
  - toEndpoints: [{matchLabels: {app: server}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{path: "/"}]}
`

// Whatever takes one end of open connections away, the other end is told, as far as it
// can be, and nothing of them is left: with the proxy in the namespace of either end.
func TestGoneWithOpenConnections(t *testing.T) {
	const conns = 20
	for _, rules := range []struct{ name, policy string }{{"proxy at the server", frontendToServer}, {"proxy at the client", frontendOut}} {
		for _, tt := range []struct {
			name string
			// take takes something away. left are the devices that the other namespaces
			// have left then, the loopback included.
			take func(t *testing.T, g *gone)
			left int
			// deaf: a client that cannot be told goes at last itself.
			deaf bool
		}{
			{"client killed", func(t *testing.T, g *gone) { kill(g.client) }, 2, false},
			{"server killed", func(t *testing.T, g *gone) { kill(g.server) }, 2, false},
			{"client's namespace deleted", func(t *testing.T, g *gone) { kill(g.client); unmount(t, g.frontend) }, 1, false},
			{"server's namespace deleted", func(t *testing.T, g *gone) { kill(g.server); unmount(t, g.serverNS) }, 1, false},
			{"veth pulled", func(t *testing.T, g *gone) { g.pull(t) }, 1, true},
		} {
			t.Run(rules.name+"/"+tt.name, func(t *testing.T) {
				r := newRig(t)
				g := &gone{serverNS: namespace(t), frontend: namespace(t)}
				join(t, g.serverNS, g.frontend, "10.98.0.1", "10.98.0.2", 1)
				r.setPolicies(rules.policy)
				r.setWorkloads(
					Workload{Name: "default/server", Labels: labels(t, "app=server"), Netns: g.serverNS},
					Workload{Name: "default/frontend", Labels: labels(t, "app=frontend"), Netns: g.frontend},
				)
				for _, ns := range []string{g.serverNS, g.frontend} { // Linux gives up sooner what nobody takes
					inside(t, ns, func() error { return os.WriteFile("/proc/sys/net/ipv4/tcp_orphan_retries", []byte("1"), 0) })
				}
				r.command(g.serverNS, r.cg, "none") // opens what is needed once
				before := r.leavings()
				g.server = r.serve(g.serverNS, r.cg, ":8080")
				g.client, _ = r.holding(g.frontend, "10.98.0.1:8080", conns)
				if now := r.leavings(); now.descriptors < before.descriptors+2*conns {
					t.Fatalf("%d descriptors more for %d connections through the proxy", now.descriptors-before.descriptors, conns)
				}
				tt.take(t, g)
				if !tt.deaf {
					g.client.Wait() // it is told, or is gone
				}
				// By now the proxy has none of the connections, whatever else lives on.
				waitFor(t, "the proxy's connections to end", func() bool { r.a.sweep(); return descriptors(t) < before.descriptors+conns })
				kill(g.client)
				kill(g.server)
				if tt.deaf { // what is unsent keeps their sockets, and so the entries of those
					unmount(t, g.serverNS)
					unmount(t, g.frontend)
				} else {
					for _, ns := range []string{g.serverNS, g.frontend} {
						if mounted(ns) {
							waitFor(t, fmt.Sprintf("%d devices in %s", tt.left, ns), func() bool { r.a.sweep(); return links(t, ns) == tt.left })
						}
					}
				}
				r.nothingMore(before)
			})
		}
	}
}

// gone is what can be taken away.
type gone struct {
	serverNS, frontend string
	server, client     *exec.Cmd
}

func (g *gone) pull(t *testing.T) {
	t.Helper()
	inside(t, g.serverNS, func() error {
		l, err := netlink.LinkByName("va1")
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
}

func kill(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

func unmount(t *testing.T, path string) {
	t.Helper()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
}

func mounted(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && int64(st.Type) == unix.NSFS_MAGIC
}
