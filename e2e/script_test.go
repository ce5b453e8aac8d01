//go:build linux

// Package e2e runs the whole product: the built binary, real sockets, the real
// kernel. What it does is written as scripts in testdata/, which read from top
// to bottom; the commands they use are in commands_test.go.
package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/weir-proxy/weir/e2e/internal/binary"
	"github.com/weir-proxy/weir/e2e/internal/traces"
)

func TestMain(m *testing.M) {
	testscript.Main(withWeir{m}, map[string]func(){
		"get":          getMain,
		"steps":        stepsMain,
		"stage":        stageMain,
		"two-services": twoServicesMain,
	})
}

// withWeir builds the binary under test before the tests and removes it after.
type withWeir struct{ m *testing.M }

// weirBinary lies in a directory that any user may enter; set before any test runs.
var weirBinary string

func (w withWeir) Run() int {
	binary.ForgetSudo()
	var err error
	if weirBinary, err = binary.Build("e2e/demo"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(filepath.Dir(weirBinary))
	return w.m.Run()
}

// TestScript needs nothing but the binary.
func TestScript(t *testing.T) {
	runScripts(t, "testdata/script")
}

// TestKernel needs root and a kernel that takes BPF programs.
func TestKernel(t *testing.T) {
	binary.NeedKernel(t, weirBinary)
	runScripts(t, "testdata/kernel")
}

func runScripts(t *testing.T, dir string) {
	code, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                commands,
		Setup: func(env *testscript.Env) error {
			env.Values[originsKey{}] = origins{}
			before, err := traces.Now()
			if err != nil && os.Getenv("WEIR_REQUIRE_KERNEL") == "1" {
				return err
			}
			env.Values[tracesKey{}] = before
			env.Setenv("WEIR", weirBinary)
			env.Setenv("CODE", code)
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
