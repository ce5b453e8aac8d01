//go:build linux

package run

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func statusOf(p *os.ProcessState) int {
	if ws := p.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return p.ExitCode()
}

func TestExitStatus(t *testing.T) {
	dir := tools(t)
	files := t.TempDir()
	script := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(files, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name   string
		args   []string
		code   int
		stderr string
	}{
		{"true", []string{"true"}, 0, ""},
		{"own status", []string{"sh", "-c", "exit 3"}, 3, ""},
		{"own 125", []string{"sh", "-c", "exit 125"}, 125, ""},
		{"killed", []string{"sh", "-c", "kill -TERM $$"}, 128 + 15, ""},
		{"killed by what Go catches", []string{"sh", "-c", "kill -USR1 $$"}, 128 + 10, ""},
		{"killed with a core", []string{"sh", "-c", "ulimit -c 0; kill -SEGV $$"}, 128 + 11, ""},
		{"killed for good", []string{"sh", "-c", "kill -KILL $$"}, 128 + 9, ""},
		{"not found", []string{"no-such-command"}, 127, "weir: no-such-command: not found in PATH\n"},
		{"no such file", []string{"./no/such/file"}, 127, `weir: start "./no/such/file": no such file or directory` + "\n"},
		{"not executable", []string{script("plain", "text", 0o644)}, 126, "permission denied"},
		{"a directory", []string{"/tmp"}, 126, "permission denied"},
		{"no #!", []string{script("bare", "exit 7", 0o755)}, 7, ""},
		{"no interpreter", []string{script("lost", "#!/no/such/interpreter\n", 0o755)}, 127, "no such file"},
		{"no command", nil, 125, "command is missing"},
		{"empty command", []string{""}, 125, "command is missing"},
		{"no such user", []string{"--user", "no-such-user", "true"}, 125, `find user "no-such-user"`},
		{"nothing to judge by", []string{"--audit=false", "true"}, 125, "--policy FILE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := runCmd(t, exec.Command(filepath.Join(dir, "weir"), c.args...))
			said := withoutNotes(r.stderr)
			if r.code != c.code || c.stderr == "" && said != "" || !strings.Contains(said, c.stderr) {
				t.Errorf("status %d, want %d; stderr %q, want %q in it", r.code, c.code, said, c.stderr)
			}
		})
	}
}
