//go:build linux

// Package e2e runs the whole product: the built binary, real sockets, the real
// kernel. What it does is written as scripts in testdata/, which read from top
// to bottom; the commands they use are in commands_test.go.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(withWeir{m}, map[string]func(){
		"get":   getMain,
		"steps": stepsMain,
	})
}

// withWeir builds the binary under test before the tests and removes it after.
type withWeir struct{ m *testing.M }

// weirBinary lies in a directory that any user may enter; set before any test runs.
var weirBinary string

func (w withWeir) Run() int {
	dir, err := os.MkdirTemp("", "weir-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	weirBinary = filepath.Join(dir, "weir")
	args := []string{"build", "-o", weirBinary}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, module+"agent/cmd/weir")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build weir: %v\n%s", err, out)
		return 1
	}
	return w.m.Run()
}

// TestScript needs nothing but the binary.
func TestScript(t *testing.T) {
	runScripts(t, "testdata/script")
}

// TestKernel needs root and a kernel that takes BPF programs.
func TestKernel(t *testing.T) {
	needKernel(t)
	runScripts(t, "testdata/kernel")
}

func runScripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                commands,
		Setup: func(env *testscript.Env) error {
			env.Values[originsKey{}] = origins{}
			before, err := traces()
			if err != nil && os.Getenv("WEIR_REQUIRE_KERNEL") == "1" {
				return err
			}
			env.Values[tracesKey{}] = before
			env.Setenv("PATH", filepath.Dir(weirBinary)+":"+env.Getenv("PATH"))
			// Commands that a script runs as another user read its files.
			for _, dir := range []string{env.WorkDir, filepath.Dir(env.WorkDir)} {
				if err := os.Chmod(dir, 0o755); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// needKernel skips the test where the kernel half cannot run at all, and only
// there: with WEIR_REQUIRE_KERNEL=1 that is a failure.
func needKernel(t *testing.T) {
	t.Helper()
	out, err := exec.Command(weirBinary, "doctor", "--quiet").CombinedOutput()
	if err == nil {
		return
	}
	reason := fmt.Sprintf("%v: %s", err, strings.TrimSpace(string(out)))
	if os.Getenv("WEIR_REQUIRE_KERNEL") == "1" {
		t.Fatalf("WEIR_REQUIRE_KERNEL=1, but weir doctor says: %s", reason)
	}
	t.Skipf("weir doctor says: %s", reason)
}
