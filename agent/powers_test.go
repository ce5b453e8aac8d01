//go:build linux

package agent

import (
	"github.com/weir-proxy/weir/internal/testbed"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A workload whose processes could get past us is cut off, unless the configuration
// says that it knows.
func TestUnconfined(t *testing.T) {
	r := newRig(t)
	ns := namespace(t)
	cmd := exec.Command("nsenter", "--net="+ns, "sleep", "1000") // root, with every capability
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	w := Workload{Name: "default/server", Labels: labels(t, "app=server"), Netns: ns}
	waitFor(t, "the process to be there", func() bool { return len(lookAtProcesses().byNamespace[inode(t, ns)]) > 0 })
	err := r.a.SetWorkloads([]Workload{w})
	if err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") || !strings.Contains(err.Error(), "unconfined: true") {
		t.Errorf("refusal: %v", err)
	}
	if s := r.a.Status().Endpoints[0]; s.State != Refused {
		t.Errorf("status %+v", s)
	}
	r.serve(ns, r.cg, ":8080")
	if got := r.get(ns, r.cg, "GET", "http://192.0.2.1:8080/"); got != "connection refused" {
		t.Errorf("it reaches others: %s", got)
	}
	w.Unconfined = true
	r.setWorkloads(w)
	if s := r.a.Status().Endpoints[0]; s.State != Unconfined {
		t.Errorf("status %+v", s)
	}
}

// rooted starts a process as root in a cgroup.
func (r *rig) rooted(cg string, args ...string) *exec.Cmd {
	r.t.Helper()
	cmd := r.command("", cg)
	cmd.Path, cmd.Args = "/usr/bin/env", append([]string{"env"}, args...)
	cmd.SysProcAttr.Credential = nil
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { kill(cmd) })
	return cmd
}

// The same for cgroups, below them too; there it holds for who comes later as well.
// Capabilities over other namespaces than the endpoint's do not count.
func TestUnconfinedCgroup(t *testing.T) {
	r := newRig(t)
	cg := filepath.Join(r.cg, "server")
	below := filepath.Join(cg, "below")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	state := func() EndpointState { return r.a.Status().Endpoints[0].State }
	w := Workload{Name: "default/server", Labels: labels(t, "app=server"), Cgroup: r.group + "/server"}

	early := r.rooted(below, "sleep", "1000")
	err := r.a.SetWorkloads([]Workload{w})
	if err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") || !strings.Contains(err.Error(), "unconfined: true") {
		t.Errorf("refusal: %v", err)
	}
	if s := state(); s != Refused {
		t.Errorf("with a process of root's: %s", s)
	}
	if got := r.get("", cg, "GET", "http://127.0.0.1:1/"); got != "connection refused" {
		t.Errorf("it reaches others: %s", got)
	}
	kill(early)
	waitFor(t, "it to be confined", func() bool { r.a.sweep(); return state() == Ready })

	// Nobody, and root of a user namespace of its own, who has no power over the node's.
	child := r.command("", cg, "none")
	child.Path, child.Args = "/usr/bin/unshare", []string{"unshare", "--user", "--map-root-user", "sleep", "1000"}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(child) })
	waitFor(t, "a process with capabilities", func() bool {
		status, _ := os.ReadFile("/proc/" + strconv.Itoa(child.Process.Pid) + "/status")
		comm, _ := os.ReadFile("/proc/" + strconv.Itoa(child.Process.Pid) + "/comm")
		return slices.Contains(permitted(string(status)), "CAP_NET_ADMIN") && string(comm) == "sleep\n"
	})
	for range 3 {
		r.a.sweep()
		if s := state(); s != Ready {
			t.Fatalf("with a user namespace of its own: %s", s)
		}
	}

	late := r.rooted(cg, "sleep", "1000")
	waitFor(t, "it to be cut off", func() bool { r.a.sweep(); return state() == Refused })
	w.Unconfined = true
	r.setWorkloads(w)
	if s := state(); s != Unconfined {
		t.Errorf("named so: %s", s)
	}
	w.Unconfined = false
	r.setWorkloads(w)
	waitFor(t, "it to be cut off again", func() bool { r.a.sweep(); return state() == Refused })
	kill(late)
	waitFor(t, "it to be confined again", func() bool { r.a.sweep(); return state() == Ready })
}

// In a user namespace and a network namespace of one's own one has power over that.
func TestPowersOverOwnNamespace(t *testing.T) {
	testbed.NeedKernel(t)
	cmd := exec.Command("unshare", "--user", "--map-root-user", "--net", "sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	var got powers
	waitFor(t, "its powers", func() bool {
		comm, _ := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/comm")
		if string(comm) != "sleep\n" {
			return false
		}
		got = lookAtProcesses().byNamespace[inode(t, "/proc/"+strconv.Itoa(cmd.Process.Pid)+"/ns/net")]
		return true
	})
	// CAP_BPF in a user namespace loads no program.
	if want := (powers{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"}); !slices.Equal(got, want) {
		t.Errorf("powers %v, want %v", got, want)
	}
}
