//go:build linux

package agent

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A service that is started with a listening socket that its manager opened is judged
// in a moment, not at the next sweep.
func TestSocketActivation(t *testing.T) {
	r := newRig(t)
	cg := filepath.Join(r.cg, "server")
	if err := os.Mkdir(cg, 0o755); err != nil {
		t.Fatal(err)
	}
	r.setPolicies(frontendToServer)
	r.setWorkloads(Workload{Name: "default/server", Labels: labels(t, "app=server"), Cgroup: r.group + "/server"})
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	socket, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	// Where the sweep after a workload came would find it once, and the next one late.
	for range 4 {
		cmd := r.command("", cg, "serve", "inherited")
		cmd.ExtraFiles = []*os.File{socket}
		begin := time.Now()
		r.start(cmd)
		waitFor(t, "a stranger to be refused", func() bool {
			return r.get("", r.cg, "GET", "http://"+ln.Addr().String()+"/") == "connection refused"
		})
		d := time.Since(begin)
		t.Logf("judged %v after its start", d)
		if d > sweepEvery/2 {
			t.Errorf("judged %v after its start", d)
		}
		kill(cmd)
		waitFor(t, "the socket to be its manager's alone", func() bool {
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				return false
			}
			c.Close()
			return true
		})
	}
}
