//go:build linux

package run

import (
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestCannotLeave lets the command try every way out that we know, as an unprivileged
// user and as root.
func TestCannotLeave(t *testing.T) {
	for _, name := range []string{"nobody", "root"} {
		t.Run(name, func(t *testing.T) {
			dir := tools(t)
			setuidCopy(t, dir)
			r := runCmd(t, exec.Command(filepath.Join(dir, "weir"), "--user", name,
				filepath.Join(dir, "attack"), strconv.Itoa(outside(t, name))))
			if r.code != 0 {
				t.Fatalf("status %d\n%s\n%s", r.code, r.stdout, r.stderr)
			}
			t.Log(r.stdout)
			tries := strings.Count(r.stdout, "\n")
			if tries < 100 {
				t.Errorf("only %d attempts were made", tries)
			}
			for line := range strings.Lines(r.stdout) {
				if strings.Contains(line, escaped) {
					t.Error(strings.TrimSpace(line))
				}
			}
		})
	}
}

// TestTypeIntoTerminal: the command cannot type what the shell would execute later.
func TestTypeIntoTerminal(t *testing.T) {
	dir := tools(t)
	s := onTerminal(t, exec.Command(filepath.Join(dir, "weir"), "--user", "root", filepath.Join(dir, "attack"), "terminal"))
	out := s.expect(`(?s).*done\r?\n`)[0]
	// Kernels that refuse it by themselves say EIO.
	for _, want := range []string{"TIOCSTI: operation not permitted", "TIOCSTI in 64 bits: operation not permitted", "TIOCLINUX: operation not permitted",
		"no terminal to type into: " + escaped, "an ordinary request: " + escaped} {
		if !strings.Contains(out, want) {
			t.Errorf("lacks %q: %s", want, out)
		}
	}
	s.status()
}

// setuidCopy puts a set-user-ID copy of the attacker into dir.
func setuidCopy(t *testing.T, dir string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "attack"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "setuid")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
}

// outside starts a process of the user outside of any run, without capabilities: the
// one that is easiest to take over.
func outside(t *testing.T, name string) int {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("setpriv", "--reuid="+u.Uid, "--regid="+u.Gid, "--clear-groups",
		"--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
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
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	// Once it answers, it is what it is going to be.
	if _, err := io.WriteString(in, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}
