//go:build linux

package run

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/weir-proxy/weir/agent/internal/cgroup"
	"github.com/weir-proxy/weir/agent/internal/mounts"
)

// TestDescriptors: the command has 0, 1 and 2 and no others.
func TestDescriptors(t *testing.T) {
	dir := tools(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	weir := filepath.Join(dir, "weir")

	cmd := exec.Command(weir, "sh", "-c", "ls -l /proc/$$/fd")
	cmd.ExtraFiles = []*os.File{nil, nil, socket} // 5
	r := runCmd(t, cmd)
	if strings.Contains(r.stdout, "socket:") || strings.Contains(r.stdout, "anon_inode") || r.code != 0 {
		t.Errorf("descriptors of the command, status %d:\n%s%s", r.code, r.stdout, r.stderr)
	}

	root, err := cgroup.OpenRoot()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	procs, err := os.OpenFile(root.Path("/cgroup.procs"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer procs.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unixSocket := os.NewFile(uintptr(pair[0]), "socketpair")
	defer unixSocket.Close()
	defer unix.Close(pair[1])
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	anonymous := os.NewFile(uintptr(event), "eventfd")
	defer anonymous.Close()
	for _, c := range []struct {
		name string
		set  func(*exec.Cmd)
		want string
	}{
		{"network socket as stdin", func(c *exec.Cmd) { c.Stdin = socket }, "standard input is a network socket"},
		{"network socket as stdout", func(c *exec.Cmd) { c.Stdout = socket }, "standard output is a network socket"},
		{"cgroup file as stdout", func(c *exec.Cmd) { c.Stdout = procs }, "standard output is a cgroup file"},
		{"eventfd as stdin", func(c *exec.Cmd) { c.Stdin = anonymous }, "standard input is a nameless kernel object"},
		{"unix socket as stdin", func(c *exec.Cmd) { c.Stdin = unixSocket }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(weir, "true")
			c.set(cmd)
			r := runCmd(t, cmd)
			if c.want == "" && r.code != 0 || c.want != "" && (r.code != 125 || !strings.Contains(r.stderr, c.want)) {
				t.Errorf("status %d, stderr %q, want %q", r.code, r.stderr, c.want)
			}
		})
	}
}

// TestUser: who the command is.
func TestUser(t *testing.T) {
	dir := tools(t)
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	const script = `echo "$(id -u) $(id -g) $(id -G) $HOME $USER $LOGNAME ${SUDO_UID-none}"; grep -E '^(CapEff|CapPrm|CapInh|CapAmb|NoNewPrivs)' /proc/self/status`
	const none = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n"
	plain := fmt.Sprintf("%s %s %s %s nobody nobody none\n", nobody.Uid, nobody.Gid, nobody.Gid, nobody.HomeDir) + none
	for _, c := range []struct {
		name string
		args []string
		env  []string
		want string // beginning of what it says
	}{
		{"--user", []string{"--user", "nobody"}, nil, plain},
		{"--user by id", []string{"--user", nobody.Uid}, nil, plain},
		{"sudo", nil, []string{"SUDO_UID=" + nobody.Uid, "SUDO_GID=" + nobody.Gid, "SUDO_USER=nobody"}, plain},
		{"sudo by an unknown user", nil, []string{"SUDO_UID=54321", "SUDO_GID=54322", "SUDO_USER=elsewhere"},
			"54321 54322 54322 /h elsewhere elsewhere none\n" + none},
		{"sudo by root", nil, []string{"SUDO_UID=0", "SUDO_GID=0", "SUDO_USER=root"}, "0 0 0 /h u l 0\n"},
		{"root", nil, nil, "0 0 0 /h u l none\n"},
		{"--user root under sudo", []string{"--user", "root"}, []string{"SUDO_UID=" + nobody.Uid, "SUDO_GID=" + nobody.Gid}, "0 0 0 /h u l " + nobody.Uid + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(filepath.Join(dir, "weir"), append(c.args, "sh", "-c", script)...)
			cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/h", "USER=u", "LOGNAME=l", "GORACE=atexit_sleep_ms=0"}, c.env...)
			r := runCmd(t, cmd)
			if !strings.HasPrefix(r.stdout, c.want) {
				t.Errorf("status %d, stderr %q:\n%s", r.code, r.stderr, cmp.Diff(c.want, r.stdout))
			}
		})
	}
}

// TestRootsCapabilities: with --user root the dropped ones are gone from every set.
func TestRootsCapabilities(t *testing.T) {
	dir := tools(t)
	r := runCmd(t, exec.Command(filepath.Join(dir, "weir"), "--user", "root", "grep", "^Cap", "/proc/self/status"))
	sets := 0
	for line := range strings.Lines(r.stdout) {
		var name string
		var bits uint64
		if _, err := fmt.Sscanf(line, "%s %x", &name, &bits); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		sets++
		for _, c := range droppedCaps {
			if bits&(1<<c) != 0 {
				t.Errorf("%s has capability %d", name, c)
			}
		}
	}
	if sets != 5 {
		t.Errorf("%d sets, want 5: %s%s", sets, r.stdout, r.stderr)
	}
}

// TestLeftBehind: what the command leaves running is killed, and weir says so once.
func TestLeftBehind(t *testing.T) {
	dir := tools(t)
	start := time.Now()
	r := runCmd(t, exec.Command(filepath.Join(dir, "weir"), "--user", "nobody", "sh", "-c",
		`for i in 1 2 3; do setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $!; done; exit 4`))
	if r.code != 4 || !strings.Contains(r.stderr, "left 3 processes behind") {
		t.Errorf("status %d, want 4; stderr %q", r.code, r.stderr)
	}
	pids := strings.Fields(r.stdout)
	if len(pids) != 3 {
		t.Fatalf("stdout %q", r.stdout)
	}
	for _, pid := range pids {
		if cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && strings.Contains(string(cmdline), "sleep") {
			t.Errorf("process %s lives", pid)
		}
	}
	if d := time.Since(start); d > patience {
		t.Errorf("that took %v", d)
	}
}

// TestKilled: a run whose weir was killed keeps its command and its cgroup, and is swept
// up when the command is gone.
func TestKilled(t *testing.T) {
	dir := tools(t)
	weir := filepath.Join(dir, "weir")
	cmd := exec.Command(weir, "--user", "nobody", "sh", "-c", `grep ^0:: /proc/self/cgroup; read x`)
	c := startChild(t, cmd)
	group := strings.TrimPrefix(c.line(t), "0::")
	if !strings.Contains(group, "/weir-run-") {
		t.Fatalf("the command is in cgroup %s", group)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Wait()

	root, err := cgroup.OpenRoot()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	bpffs, err := mounts.FindBPFFS()
	if err != nil {
		t.Fatal(err)
	}
	id := strings.TrimPrefix(filepath.Base(group), "weir-run-")
	places := []string{root.Path(group), filepath.Join(bpffs, "weir", id), filepath.Join(bpffs, "weir-runs", id)}
	runCmd(t, exec.Command(weir, "true"))
	if busy, err := root.Populated(group); err != nil || !busy {
		t.Errorf("the command is gone: %v, %v", busy, err)
	}
	for _, p := range places {
		if _, err := os.Stat(p); err != nil {
			t.Errorf("after the next start, while the command lives: %v", err)
		}
	}
	c.in.Close() // the command ends
	waitFor(t, "the end of the command", func() bool {
		busy, err := root.Populated(group)
		return err == nil && !busy
	})
	waitFor(t, "the sweep", func() bool {
		runCmd(t, exec.Command(weir, "true"))
		for _, p := range places {
			if _, err := os.Stat(p); err == nil {
				return false
			}
		}
		return true
	})
}

// TestDatapathRefuses: nothing runs and nothing is left.
func TestDatapathRefuses(t *testing.T) {
	dir := tools(t)
	r := runCmd(t, exec.Command(filepath.Join(dir, "weir"), "--datapath", "refuse", "echo", "ran"))
	if r.code != StatusFailed || r.stdout != "" || !strings.Contains(r.stderr, "weir: the datapath refused\n") {
		t.Errorf("status %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
}

// TestDatapathFails: the command does not outlive its judge.
func TestDatapathFails(t *testing.T) {
	dir := tools(t)
	r := runCmd(t, exec.Command(filepath.Join(dir, "weir"), "--datapath", "fail", "sleep", "1000"))
	if r.code != 128+9 || !strings.Contains(r.stderr, "the datapath failed") {
		t.Errorf("status %d, want 137; stderr %q", r.code, r.stderr)
	}
}

// TestTerminatedEarly: weir that is told to end before the command runs does.
func TestTerminatedEarly(t *testing.T) {
	dir := tools(t)
	r := runCmd(t, exec.Command(filepath.Join(dir, "weir"), "--datapath", "terminate", "echo", "ran"))
	if r.code != 128+15 || r.stdout != "" {
		t.Errorf("status %d, want 143; stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s", what)
		}
		time.Sleep(10 * time.Millisecond) // between two looks at the condition
	}
}

// TestTwoAtOnce: runs do not share a cgroup, nor a mount namespace, and leave the host's
// mounts as they are.
func TestTwoAtOnce(t *testing.T) {
	dir := tools(t)
	before, err := mounts.Of("self", "cgroup", "cgroup2", "bpf", "proc", "sysfs")
	if err != nil {
		t.Fatal(err)
	}
	const script = `readlink /proc/self/ns/mnt; readlink /proc/self/ns/user; grep ^0:: /proc/self/cgroup; read x`
	var seen []string
	var children []*child
	for range 2 {
		c := startChild(t, exec.Command(filepath.Join(dir, "weir"), "--user", "root", "sh", "-c", script))
		for range 3 {
			seen = append(seen, c.line(t))
		}
		children = append(children, c)
	}
	during, err := mounts.Of("self", "cgroup", "cgroup2", "bpf", "proc", "sysfs")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if seen[i] == seen[i+3] {
			t.Errorf("both have %s", seen[i])
		}
	}
	for i, m := range before {
		if m.Type != "bpf" && (i >= len(during) || during[i].ReadOnly != m.ReadOnly) {
			t.Errorf("the host's mount changed: %+v", m)
		}
	}
	for _, c := range children {
		c.in.Close()
		if c.cmd.Wait(); statusOf(c.cmd.ProcessState) != 1 { // of read at the end of its input
			t.Errorf("status %v", c.cmd.ProcessState)
		}
	}
	limit, err := os.ReadFile("/proc/sys/user/max_cgroup_namespaces")
	if err != nil || strings.TrimSpace(string(limit)) == "0" {
		t.Errorf("the host's limit of cgroup namespaces is %q, %v", limit, err)
	}
}

// TestShimByHand: started without weir, the shim does nothing to this machine.
func TestShimByHand(t *testing.T) {
	dir := tools(t)
	cmd := exec.Command(filepath.Join(dir, "weir"), "true")
	cmd.Args[0] = shimName
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{fileWith(t, `{"Account":{"UID":0},"Outside":{"User":0,"Mount":0}}`), w}
	got := runCmd(t, cmd)
	w.Close()
	if err := readReport(r); got.code != StatusFailed || err == nil || !strings.Contains(err.Error(), "not in namespaces of its own") {
		t.Errorf("status %d, report %v", got.code, err)
	}
}

func fileWith(t *testing.T, text string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
