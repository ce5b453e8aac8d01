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

// Build builds weir, and the commands of this module in more, with the race
// detector if the test has it, into a new directory that any user may enter. It
// returns the path of weir; the caller removes the directory.
func Build(more ...string) (path string, err error) {
	const module = "github.com/weir-proxy/weir/"
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
	args := []string{"build", "-o", dir}
	if raceEnabled {
		args = append(args, "-race")
	}
	for _, name := range append([]string{"agent/cmd/weir"}, more...) {
		args = append(args, module+name)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %v: %w\n%s", args, err, out)
	}
	return filepath.Join(dir, "weir"), nil
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
