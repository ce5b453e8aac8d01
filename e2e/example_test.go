//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/weir-proxy/weir/e2e/internal/binary"
	"github.com/weir-proxy/weir/e2e/internal/origin"
)

// TestExampleHTTPAllowGet runs examples/http-allow-get as its README shows it. The
// policy names port 8080, which may be taken here: the stage has a network
// namespace of its own.
func TestExampleHTTPAllowGet(t *testing.T) {
	binary.NeedKernel(t, weirBinary)
	policy, err := filepath.Abs("../examples/http-allow-get/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"stage", "get"} { // TestMain goes by the name
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(dir, "stage"), weirBinary, policy, filepath.Join(dir, "get"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Error(err)
	}
	const want = `GET 8080/public: 200
GET 8080/public/a?b: 200
GET 8080/private: 403
POST 8080/public: 403
GET 8081/public: refused
reached GET /public
reached GET /public/a?b
`
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func stageMain() {
	if err := stage(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// stage runs in the test's namespace: the services of the example, and the
// command once for each line of its README.
func stage(weir, policy, get string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	web, err := origin.StartAt(8080, "127.0.0.1")
	if err != nil {
		return err
	}
	defer web.Close()
	other, err := origin.StartAt(8081, "127.0.0.1")
	if err != nil {
		return err
	}
	defer other.Close()
	for _, r := range [][2]string{{"GET", "8080/public"}, {"GET", "8080/public/a?b"}, {"GET", "8080/private"}, {"POST", "8080/public"}, {"GET", "8081/public"}} {
		cmd := exec.Command(weir, "run", "--policy", policy, "--log", os.DevNull, "--", get, "-X", r[0], "http://127.0.0.1:"+r[1])
		out, err := cmd.Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == getRefused {
			out = []byte("refused\n")
		} else if err != nil {
			return fmt.Errorf("%v: %w: %s", cmd.Args, err, exit.Stderr)
		}
		fmt.Printf("%s %s: %s", r[0], r[1], out)
	}
	for _, r := range append(web.Requests(), other.Requests()...) {
		fmt.Printf("reached %s %s\n", r.Method, r.Target)
	}
	return nil
}
