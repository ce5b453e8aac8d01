//go:build linux

package run

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// countMain is a command that says which signals it gets, and ends on SIGTERM.
func countMain() {
	c := make(chan os.Signal, 16)
	signal.Notify(c, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGWINCH)
	fmt.Println("ready")
	got := map[os.Signal]int{}
	for s := range c {
		got[s]++
		fmt.Printf("got %v\n", s)
		if s == unix.SIGTERM {
			fmt.Printf("in all: interrupt %d, quit %d, window %d, terminated %d.\n",
				got[unix.SIGINT], got[unix.SIGQUIT], got[unix.SIGWINCH], got[unix.SIGTERM])
			os.Exit(5)
		}
	}
}

// child is weir with its output as lines.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startChild(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	alarm := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		alarm.Stop()
		in.Close()
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return &child{cmd, in, bufio.NewScanner(out)}
}

// line reads the next line.
func (c *child) line(t *testing.T) string {
	t.Helper()
	if !c.out.Scan() {
		t.Fatalf("output ended: %v", c.out.Err())
	}
	return c.out.Text()
}

func (c *child) expect(t *testing.T, want string) {
	t.Helper()
	if got := c.line(t); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// TestSignalToWeir sends signals to weir alone: each reaches the command, once.
func TestSignalToWeir(t *testing.T) {
	dir := tools(t)
	cmd := exec.Command(filepath.Join(dir, "weir"), "--user", "nobody", filepath.Join(dir, "count"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal
	c := startChild(t, cmd)
	c.expect(t, "ready")
	for _, s := range []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGWINCH, unix.SIGTERM} {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		c.expect(t, "got "+s.String())
	}
	c.expect(t, "in all: interrupt 1, quit 1, window 1, terminated 1.")
	if cmd.Wait(); statusOf(cmd.ProcessState) != 5 {
		t.Errorf("status %v, want 5", cmd.ProcessState)
	}
}

// TestInterruptFromTerminal types Ctrl-C and Ctrl-\: the command gets each once, and weir
// outlives them.
func TestInterruptFromTerminal(t *testing.T) {
	dir := tools(t)
	s := onTerminal(t, exec.Command(filepath.Join(dir, "weir"), "--user", "nobody", filepath.Join(dir, "count")))
	s.expect("ready")
	s.typeIn("\x03")
	s.expect("got interrupt")
	s.typeIn("\x1c")
	s.expect("got quit")
	if err := unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 7, Col: 9}); err != nil {
		t.Fatal(err)
	}
	s.expect("got window")
	if err := s.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.expect("in all: interrupt 1, quit 1, window 1, terminated 1[.]")
	if code := s.status(); code != 5 {
		t.Errorf("status %d, want 5", code)
	}
}

// TestInterruptKills types Ctrl-C at a command that dies of it: weir dies of it too, so
// that a shell ends its loop.
func TestInterruptKills(t *testing.T) {
	dir := tools(t)
	s := onTerminal(t, exec.Command(filepath.Join(dir, "weir"), "--user", "nobody", "sh", "-c", "echo ready-$$; read x"))
	s.expect(`ready-\d+`)
	s.typeIn("\x03")
	if code := s.status(); code != 128+2 {
		t.Errorf("status %d, want 130", code)
	}
	if ws := s.cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() {
		t.Error("weir exited instead of being killed by the signal")
	}
}

// TestJobControl stops and continues the command from a shell.
func TestJobControl(t *testing.T) {
	dir := tools(t)
	cmd := exec.Command("bash", "--norc", "--noprofile", "-i")
	cmd.Env = append(os.Environ(), "PS1=$ ", "TERM=dumb", "HISTFILE=")
	s := onTerminal(t, cmd)
	s.typeIn(filepath.Join(dir, "weir") + " --user nobody sh -c 'echo ready-$$; read x; echo got-$x; read y; echo then-$y'\n")
	pid := s.expect(`ready-(\d+)`)[1]
	for _, x := range []string{"one", "two"} {
		s.typeIn("\x1a")
		s.expect("Stopped")
		s.typeIn("echo shell-$((1+1))\n")
		s.expect("shell-2")
		if state := stateOf(t, pid); state != "T" {
			t.Errorf("the command is in state %s, want T", state)
		}
		s.typeIn("fg\n")
		s.typeIn(x + "\n")
		s.expect("(got|then)-" + x)
	}
	s.typeIn("echo status-$?-$((1+1))\n")
	s.expect("status-0-2")

	// Stopped in the background, and continued there.
	s.typeIn(filepath.Join(dir, "weir") + " --user nobody " + filepath.Join(dir, "count") + "\n")
	s.expect("ready")
	s.typeIn("\x1a")
	s.expect("Stopped")
	s.typeIn("bg\n")
	// It may have stopped again by now, to read the terminal, before the shell knows:
	// then the shell would leave SIGTERM pending.
	s.typeIn("kill %1; kill -CONT %1; wait %1; echo status-$?-$((1+1))\n")
	s.expect("got terminated")
	s.expect("status-5-2")
	s.typeIn("exit\n")
	if code := s.status(); code != 0 {
		t.Errorf("shell: status %d", code)
	}
}

// TestContinueWhileStopping continues a job at the moment when weir is about to stop with
// its command. Nobody continues it a second time, so it must be running then.
func TestContinueWhileStopping(t *testing.T) {
	dir := tools(t)
	cmd := exec.Command("bash", "--norc", "--noprofile", "-i")
	cmd.Env = append(os.Environ(), "PS1=$ ", "TERM=dumb", "HISTFILE=")
	s := onTerminal(t, cmd)
	s.typeIn(filepath.Join(dir, "weir") + " --user nobody sh -c 'echo ready-$$; exec sleep 1000' &\n")
	pid := s.expect(`ready-(\d+)`)[1]
	command, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	weir, err := unix.Getpgid(command) // bash makes each job a group
	if err != nil {
		t.Fatal(err)
	}
	var stops int
	for i := range 400 {
		if err := unix.Kill(command, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Duration(i) * 2 * time.Microsecond); time.Now().Before(end); {
		}
		if stateOf(t, strconv.Itoa(weir)) == "T" {
			stops++
		}
		if err := unix.Kill(-weir, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if stateOf(t, strconv.Itoa(weir)) == "T" || stateOf(t, pid) == "T" {
				t.Fatalf("round %d: stopped after it was continued", i)
			}
		}
	}
	if err := unix.Kill(command, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); stateOf(t, strconv.Itoa(weir)) != "T"; {
		if time.Now().After(end) {
			t.Fatal("weir does not stop with its command")
		}
	}
	t.Logf("weir stopped in %d of 400 rounds", stops)
	unix.Kill(-weir, unix.SIGKILL)
	unix.Kill(command, unix.SIGKILL)
}

func stateOf(t *testing.T, pid string) string {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:1]
}

// TestInheritedSignals: what weir's caller ignores, the command ignores, and nothing else
// is ignored or blocked.
func TestInheritedSignals(t *testing.T) {
	dir := tools(t)
	for _, c := range []struct {
		name, trap string
		ignored    uint64
	}{
		{"none", "", 0},
		{"hangup", `trap "" HUP; `, 1},
		{"interrupt", `trap "" INT; `, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := runCmd(t, exec.Command("sh", "-c", c.trap+`exec "$0" grep -E "^Sig(Ign|Blk)" /proc/self/status`, filepath.Join(dir, "weir")))
			var blocked, ignored uint64
			if _, err := fmt.Sscanf(r.stdout, "SigBlk: %x\nSigIgn: %x\n", &blocked, &ignored); err != nil {
				t.Fatalf("got %q: %v; stderr %q", r.stdout, err, r.stderr)
			}
			// Of the real-time signals make, for one, leaves some ignored.
			const standard = 1<<31 - 1
			if got := ignored & standard; blocked != 0 || got != c.ignored {
				t.Errorf("blocked %x, ignored %x, want none and %x; stderr %q", blocked, got, c.ignored, r.stderr)
			}
		})
	}
}

// TestStderrGoesAway: weir writes to a pipe that nobody reads any more and lives on.
func TestStderrGoesAway(t *testing.T) {
	dir := tools(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd := exec.Command(filepath.Join(dir, "weir"), "sh", "-c", "exit 3") // weir has something to say
	cmd.Stderr = w
	cmd.Run()
	w.Close()
	if code := statusOf(cmd.ProcessState); code != 3 {
		t.Errorf("status %d, want 3", code)
	}
}
