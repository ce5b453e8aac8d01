//go:build linux && interop

package interop

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Docker engine changes the machine that it runs on: bridges, iptables, forwarding,
// mounts, cgroups. The tests give it a stage: a network namespace and a mount namespace,
// in which /run is its own, and a cgroup whose end is the end of everything on it.

// stageVariable names, to the test binary, the directory of the stage that it is on.
const stageVariable = "WEIR_TEST_DOCKER_STAGE"

// runOnStage runs the calling test again, on a stage, and shows that nothing of it is
// left. stage is the directory for everything.
func runOnStage(t *testing.T) {
	roots := cgroupRoots(t)
	if err := clearStale(roots); err != nil {
		t.Error(err)
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", stagePrefix, os.Getpid())) // unix sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	name := filepath.Base(dir)
	before := hostState(t)
	own := filepath.Join(roots[0], name)
	if err := os.MkdirAll(filepath.Join(own, "stage"), 0o755); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := clearCgroups(roots, name); err != nil {
			t.Error(err)
		}
		for what, was := range before {
			if is := hostState(t)[what]; is != was {
				t.Errorf("%s was\n%s\nand is now\n%s", what, was, is)
			}
		}
		if left := mountsOf(t, dir); left != "" {
			t.Errorf("still mounted:\n%s", left)
		}
	}()
	group, err := os.Open(filepath.Join(own, "stage"))
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), stageVariable+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UseCgroupFD: true,
		CgroupFD:    int(group.Fd()),
	}
	life, err := cmd.StdinPipe() // ends with this process, however that ends
	if err != nil {
		t.Fatal(err)
	}
	defer life.Close()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("on the stage: %v", err)
	}
	t.Log(out.String())
	if strings.Contains(out.String(), "--- SKIP") || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Error("the test did not run on the stage")
	}
}

const stagePrefix = "docker-stage-"

// clearStale removes what is left of stages whose tests were killed: the engine died
// with them, cgroups and files are still there.
func clearStale(roots []string) error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), stagePrefix+"*"))
	errs := []error{err}
	for _, dir := range dirs {
		name := filepath.Base(dir)
		text, _, _ := strings.Cut(strings.TrimPrefix(name, stagePrefix), "-")
		pid, err := strconv.Atoi(text)
		if err != nil || unix.Kill(pid, 0) == nil {
			continue
		}
		errs = append(errs, clearCgroups(roots, name), os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// hostState is what an engine would change here.
func hostState(t *testing.T) map[string]string {
	t.Helper()
	state := map[string]string{}
	forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		t.Fatal(err)
	}
	state["net.ipv4.ip_forward"] = string(forward)
	rules, err := exec.Command("iptables-save").Output()
	if err != nil {
		t.Fatalf("iptables-save: %v", err)
	}
	var kept []string
	for line := range strings.Lines(string(rules)) {
		if !strings.HasPrefix(line, "#") { // the time
			line, _, _ = strings.Cut(line, " [") // counters
			kept = append(kept, strings.TrimSpace(line))
		}
	}
	state["iptables"] = strings.Join(kept, "\n")
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Type() == "bridge" {
			state["bridges"] += l.Attrs().Name + " "
		}
	}
	for _, root := range cgroupRoots(t) {
		if _, err := os.Stat(filepath.Join(root, "docker")); err == nil {
			state["cgroups"] += root + "/docker "
		}
	}
	return state
}

// cgroupRoots are the mounted hierarchies, version 2 first.
func cgroupRoots(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var roots []string
	for line := range strings.Lines(string(b)) {
		switch f := strings.Fields(line); f[2] {
		case "cgroup2":
			roots = append([]string{f[1]}, roots...)
		case "cgroup":
			roots = append(roots, f[1])
		}
	}
	if len(roots) == 0 {
		t.Fatal("no cgroups are mounted")
	}
	return roots
}

func mountsOf(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var left string
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, dir) {
			left += line
		}
	}
	return left
}

// clearCgroups kills whoever is in a cgroup or below, and removes it from every
// hierarchy.
func clearCgroups(roots []string, name string) error {
	own := filepath.Join(roots[0], name)
	if err := os.WriteFile(filepath.Join(own, "cgroup.kill"), []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, root := range roots {
		var last error
		gone := poll(30*time.Second, func() bool {
			last = removeTree(filepath.Join(root, name))
			return last == nil
		})
		if !gone {
			errs = append(errs, last)
		}
	}
	return errors.Join(errs...)
}

// removeTree removes directories only: the files of a cgroup go with it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if e.IsDir() {
			errs = append(errs, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.Remove(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// poll waits for a condition.
func poll(patience time.Duration, ok func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// stage is what the tests inside have.
type stage struct {
	t     *testing.T
	dir   string
	agent int // pid
}

// enterStage prepares the namespaces that this process was started in, and starts the
// engine. It is stopped when the test ends.
func enterStage(t *testing.T) *stage {
	s := &stage{t: t, dir: os.Getenv(stageVariable)}
	roots := cgroupRoots(t)
	go func() {
		io.Copy(io.Discard, os.Stdin) // until the outer test is gone
		os.WriteFile(filepath.Join(roots[0], filepath.Base(s.dir), "cgroup.kill"), []byte("1"), 0)
	}()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("run", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	os.Setenv("HOME", s.dir)
	os.Unsetenv("DOCKER_HOST")
	os.Unsetenv("DOCKER_CONTEXT")
	s.startEngine()
	return s
}

func (s *stage) startEngine() {
	s.t.Helper()
	log, err := os.Create(filepath.Join(s.dir, "dockerd.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command("dockerd",
		"--host", "unix:///var/run/docker.sock",
		"--data-root", filepath.Join(s.dir, "data"),
		"--exec-root", filepath.Join(s.dir, "exec"),
		"--pidfile", filepath.Join(s.dir, "pid"),
		"--cgroup-parent", "/"+filepath.Base(s.dir)+"/containers",
		"--exec-opt", "native.cgroupdriver=cgroupfs",
		"--storage-driver", "overlay2")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	s.t.Cleanup(func() {
		if ids := strings.Fields(s.docker("ps", "-aq")); len(ids) > 0 {
			s.docker(append([]string{"rm", "-f"}, ids...)...)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-done:
			if err != nil {
				s.t.Errorf("dockerd: %v", err)
			}
		case <-time.After(time.Minute):
			s.t.Error("dockerd does not stop")
			cmd.Process.Kill()
		}
		log.Close()
		if s.t.Failed() {
			b, _ := os.ReadFile(log.Name())
			s.t.Logf("dockerd:\n%s", tail(b))
		}
	})
	if !poll(time.Minute, func() bool { return exec.Command("docker", "version").Run() == nil }) {
		b, _ := os.ReadFile(log.Name())
		s.t.Fatalf("dockerd does not answer:\n%s", tail(b))
	}
}

// docker runs the client.
func (s *stage) docker(args ...string) string {
	s.t.Helper()
	return s.run("docker", args...)
}

func (s *stage) run(name string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Errorf("%s %s: %v: %s%s", name, strings.Join(args, " "), err, stderr.String(), out)
	}
	return strings.TrimSpace(string(out))
}

// image makes an image of one program of this module and nothing else.
func (s *stage) image(tag, program string) {
	s.t.Helper()
	file := filepath.Join(s.dir, "program")
	build := exec.Command("go", "build", "-o", file, program)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "HOME="+s.dir)
	if out, err := build.CombinedOutput(); err != nil {
		s.t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "program", Mode: 0o755, Size: int64(len(b))}); err != nil {
		s.t.Fatal(err)
	}
	w.Write(b)
	if err := w.Close(); err != nil {
		s.t.Fatal(err)
	}
	load := exec.Command("docker", "import", "-c", `ENTRYPOINT ["/program"]`, "-", tag)
	load.Stdin = &archive
	if out, err := load.CombinedOutput(); err != nil {
		s.t.Fatalf("docker import: %v: %s", err, out)
	}
}

// address of a container in its first network.
func (s *stage) address(container string) string {
	s.t.Helper()
	return strings.Fields(s.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", container))[0]
}

// logs waits until a container has printed each of want, and returns all it printed.
func (s *stage) logs(container string, want ...string) string {
	s.t.Helper()
	var out []byte
	ok := poll(time.Minute, func() bool {
		out, _ = exec.Command("docker", "logs", container).CombinedOutput()
		for _, w := range want {
			if !bytes.Contains(out, []byte(w+"\n")) {
				return false
			}
		}
		return true
	})
	if !ok {
		s.t.Errorf("%s printed\n%s\nand not all of\n%s", container, out, strings.Join(want, "\n"))
	}
	return string(out)
}

// endpoint is what `weir endpoint list` says of one.
type endpoint struct {
	ID     uint32
	Name   string
	Labels []string
	Place  string
	State  string
	Reason string
}

// startAgent runs weir agent with a configuration. stop ends it, and returns what it
// said.
func (s *stage) startAgent(config string) (stop func() string) {
	s.t.Helper()
	log, err := os.Create(filepath.Join(s.dir, "agent.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(weir, "agent", "--config", config, "--socket", s.socket())
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.agent = cmd.Process.Pid
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	stopped := false
	stop = func() string {
		if !stopped {
			stopped = true
			cmd.Process.Signal(syscall.SIGTERM)
			select {
			case err := <-done:
				if err != nil {
					s.t.Errorf("weir agent: %v", err)
				}
			case <-time.After(time.Minute):
				s.t.Error("weir agent does not stop")
				cmd.Process.Kill()
			}
		}
		b, _ := os.ReadFile(log.Name())
		return string(b)
	}
	s.t.Cleanup(func() {
		out := stop()
		if s.t.Failed() {
			s.t.Logf("weir agent:\n%s", tail([]byte(out)))
		}
	})
	if !poll(time.Minute, func() bool { return exec.Command(weir, "status", "--socket", s.socket()).Run() == nil }) {
		s.t.Fatalf("weir agent does not answer:\n%s", stop())
	}
	return stop
}

func (s *stage) socket() string { return filepath.Join(s.dir, "weir.sock") }

// agentLog is what the running agent has said so far.
func (s *stage) agentLog() string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "agent.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// endpoints are those of the running agent, by name without its namespace.
func (s *stage) endpoints() map[string]endpoint {
	s.t.Helper()
	var list []endpoint
	out := s.run(weir, "endpoint", "list", "--socket", s.socket(), "-o", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		s.t.Fatalf("weir endpoint list: %v\n%s", err, out)
	}
	byName := map[string]endpoint{}
	for _, e := range list {
		byName[strings.TrimPrefix(e.Name, "default/")] = e
	}
	return byName
}

// held are the BPF programs and maps that the running agent has open, "prog_id 7". What
// it pins is among them.
func (s *stage) held() map[string]bool {
	s.t.Helper()
	held := map[string]bool{}
	infos, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", s.agent))
	for _, file := range infos {
		b, _ := os.ReadFile(file)
		for line := range strings.Lines(string(b)) {
			if kind, id, ok := strings.Cut(line, ":"); ok && (kind == "prog_id" || kind == "map_id") {
				held[kind+" "+strings.TrimSpace(id)] = true
			}
		}
	}
	if len(held) == 0 {
		s.t.Error("the agent has neither programs nor maps")
	}
	return held
}

// stillThere are those of held that do not go.
func stillThere(held map[string]bool) []string {
	poll(time.Minute, func() bool { // the kernel frees them some time after the last reference
		for what := range held {
			kind, text, _ := strings.Cut(what, " ")
			id, _ := strconv.ParseUint(text, 10, 32)
			var c io.Closer
			var err error
			if kind == "prog_id" {
				c, err = ebpf.NewProgramFromID(ebpf.ProgramID(id))
			} else {
				c, err = ebpf.NewMapFromID(ebpf.MapID(id))
			}
			if err == nil {
				c.Close()
			} else if errors.Is(err, fs.ErrNotExist) {
				delete(held, what)
			}
		}
		return len(held) == 0
	})
	return slices.Sorted(maps.Keys(held))
}
