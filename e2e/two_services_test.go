//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weir-proxy/weir/e2e/internal/binary"
	"github.com/weir-proxy/weir/e2e/internal/origin"
	"github.com/weir-proxy/weir/e2e/internal/traces"
)

// TestExampleTwoServices runs examples/two-services as its README shows it. The names of
// its namespaces and of its bridge may be taken here: the stage has a network namespace
// and a /run/netns of its own.
func TestExampleTwoServices(t *testing.T) {
	binary.NeedKernel(t, weirBinary)
	before, err := traces.Now()
	if err != nil {
		t.Fatal(err)
	}
	example, err := filepath.Abs("../examples/two-services")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"two-services", "get"} { // TestMain goes by the name
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(dir, "two-services"), weirBinary, example, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Error(err)
	}
	const want = `frontend GET 10.77.0.11:8080/orders/: 200
frontend DELETE 10.77.0.11:8080/orders/: 403
frontend GET 10.77.0.11:8080/admin: 403
neighbour GET 10.77.0.11:8080/orders/: refused
frontend GET 10.77.0.1:8080/: refused
neighbour GET 10.77.0.1:8080/: 200
reached GET /orders/ from 10.77.0.10
`
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if left, err := traces.Left(before); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v\n%s", err, strings.Join(left, "\n"))
	}
}

func twoServicesMain() {
	if err := twoServices(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// twoServices runs in the test's namespaces.
func twoServices(weir, example, dir string) (err error) {
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("none", "/run/netns", "tmpfs", 0, ""); err != nil {
		return err
	}
	setup := func(what string) error {
		out, err := exec.Command(filepath.Join(example, "setup.sh"), what).CombinedOutput()
		if err != nil {
			return fmt.Errorf("setup.sh %s: %w: %s", what, err, out)
		}
		return nil
	}
	if err := setup("up"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, setup("down")) }()
	orders, err := originIn("orders")
	if err != nil {
		return err
	}
	defer orders.Close()
	host, err := origin.StartAt(8080, "10.77.0.1")
	if err != nil {
		return err
	}
	defer host.Close()

	socket := filepath.Join(dir, "agent.sock")
	var notes lockedBuffer
	agent := exec.Command(weir, "agent", "--config", filepath.Join(example, "agent.yaml"), "--socket", socket)
	agent.Stderr = &notes
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	runtime.LockOSThread() // whose death is the parent's
	if err := agent.Start(); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, agent.Process.Signal(syscall.SIGTERM), agent.Wait())
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, notes.String())
		}
	}()
	for deadline := time.Now().Add(60 * time.Second); exec.Command(weir, "status", "--socket", socket).Run() != nil; {
		if time.Now().After(deadline) {
			return fmt.Errorf("the agent does not answer")
		}
		time.Sleep(20 * time.Millisecond) // between two looks at the condition
	}
	for _, line := range []string{
		"frontend GET 10.77.0.11:8080/orders/", "frontend DELETE 10.77.0.11:8080/orders/", "frontend GET 10.77.0.11:8080/admin",
		"neighbour GET 10.77.0.11:8080/orders/", "frontend GET 10.77.0.1:8080/", "neighbour GET 10.77.0.1:8080/",
	} {
		f := strings.Fields(line)
		cmd := exec.Command("ip", "netns", "exec", f[0], filepath.Join(dir, "get"), "-X", f[1], "http://"+f[2])
		out, err := cmd.Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == getRefused {
			out = []byte("refused\n")
		} else if err != nil {
			return fmt.Errorf("%v: %w: %s", cmd.Args, err, exit.Stderr)
		}
		fmt.Printf("%s: %s", line, out)
	}
	for _, r := range orders.Requests() {
		fmt.Printf("reached %s %s from %s\n", r.Method, r.Target, r.Remote.Addr().Unmap())
	}
	return nil
}

// originIn starts an origin on port 8080 of a network namespace, by a thread that is in
// it no longer than that.
func originIn(name string) (o *origin.Server, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var ns netns.NsHandle
		if ns, err = netns.GetFromName(name); err != nil {
			return
		}
		defer ns.Close()
		if err = netns.Set(ns); err == nil {
			o, err = origin.StartAt(8080, "::")
		}
	}()
	<-done
	return o, err
}
