// Package binary builds the weir that the end-to-end tests run.
package binary

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Build builds weir, with the race detector if the test has it, into a new
// directory that any user may enter. The caller removes the directory.
func Build() (path string, err error) {
	dir, err := os.MkdirTemp("", "weir-e2e")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	path = filepath.Join(dir, "weir")
	args := []string{"build", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "github.com/weir-proxy/weir/agent/cmd/weir")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build weir: %w\n%s", err, out)
	}
	return path, nil
}

// NeedKernel skips a test where the kernel half cannot run at all, and only
// there; with WEIR_REQUIRE_KERNEL=1 that is a failure.
func NeedKernel(t testing.TB, weir string) {
	t.Helper()
	out, err := exec.Command(weir, "doctor", "--quiet").CombinedOutput()
	if err == nil {
		return
	}
	reason := fmt.Sprintf("%v: %s", err, strings.TrimSpace(string(out)))
	if os.Getenv("WEIR_REQUIRE_KERNEL") == "1" {
		t.Fatalf("WEIR_REQUIRE_KERNEL=1, but weir doctor says: %s", reason)
	}
	t.Skipf("weir doctor says: %s", reason)
}

// ForgetSudo makes this process look as if nobody had called sudo. weir run starts
// commands as the user who did, who may not be able to reach a test's directories.
func ForgetSudo() {
	for _, name := range []string{"SUDO_USER", "SUDO_UID", "SUDO_GID", "SUDO_COMMAND"} {
		os.Unsetenv(name)
	}
}
