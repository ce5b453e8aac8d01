//go:build linux

package testbed

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const unprivileged = "WEIR_TEST_UNPRIVILEGED"

// Without what it needs a test is skipped, and fails where kernel tests must run.
func TestNeed(t *testing.T) {
	switch os.Getenv(unprivileged) {
	case "root":
		NeedRoot(t)
		return
	case "kernel":
		NeedKernel(t)
		return
	}
	NeedKernel(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "weir-testbed") // user nobody may enter it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	exe := filepath.Join(dir, "test")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, need := range []string{"root", "kernel"} {
		for required, want := range map[string]string{"": "--- SKIP: TestNeed", "1": "--- FAIL: TestNeed"} {
			cmd := exec.Command(exe, "-test.run", "^TestNeed$", "-test.v")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), unprivileged+"="+need, "WEIR_REQUIRE_KERNEL="+required)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), want) {
				t.Errorf("need %s, required %q: %s", need, required, out)
			}
		}
	}
}
