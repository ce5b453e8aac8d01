//go:build linux

package run

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/weir-proxy/weir/internal/testbed"
	"golang.org/x/sys/unix"
)

// The tests start this test binary again: as weir, whose datapath lets everything
// pass, since what is tested here is the other half, and as the attacker.
func TestMain(m *testing.M) {
	Main()
	switch filepath.Base(os.Args[0]) {
	case "weir":
		weirMain()
	case "attack", "setuid":
		attackMain(os.Args[1:])
		os.Exit(0)
	case "count":
		countMain()
	}
	// Whoever started the tests may ignore signals, as nohup and a shell's & do, and the
	// processes of the tests would inherit that. What has a handler they do not.
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	os.Exit(m.Run())
}

// open is a datapath that lets everything pass.
type open struct {
	closed bool
	errs   chan error
}

func (o *open) Close() error      { o.closed = true; return nil }
func (o *open) Err() <-chan error { return o.errs }

func weirMain() {
	var o Options
	flags := flag.NewFlagSet("weir", flag.ContinueOnError)
	flags.StringVar(&o.User, "user", "", "")
	flags.BoolVar(&o.Audit, "audit", true, "")
	how := flags.String("datapath", "open", "what the datapath does: open, refuse to start, fail later, be terminated while it starts")
	if err := flags.Parse(os.Args[1:]); err != nil {
		os.Exit(StatusFailed)
	}
	o.Command = flags.Args()
	dp := &open{errs: make(chan error, 1)}
	r := &runner{Options: o, errors: os.Stderr, start: func(context.Context, datapathConfig) (datapath, error) {
		switch *how {
		case "refuse":
			return nil, errors.New("the datapath refused")
		case "fail":
			dp.errs <- errors.New("the datapath failed")
		case "terminate":
			c := make(chan os.Signal, 1)
			signal.Notify(c, unix.SIGTERM)
			unix.Kill(os.Getpid(), unix.SIGTERM)
			<-c
			signal.Stop(c) // returns when all listeners have it
		}
		return dp, nil
	}}
	status, err := r.run(context.Background())
	if *how == "open" && len(o.Command) > 0 && err == nil && !dp.closed {
		fmt.Fprintln(os.Stderr, "the datapath was not closed")
	}
	var e *Error
	if errors.As(err, &e) {
		fmt.Fprintln(os.Stderr, "weir:", err)
		os.Exit(e.Status)
	}
	status.Exit()
}

// tools is a directory that any user may enter, with this binary as weir and attack.
func tools(t *testing.T) string {
	t.Helper()
	testbed.NeedRoot(t)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // else the race detector waits at each end of a process
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "weir-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, err := range []error{
		os.Chmod(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "weir"), data, 0o755),
		os.Link(filepath.Join(dir, "weir"), filepath.Join(dir, "attack")),
		os.Link(filepath.Join(dir, "weir"), filepath.Join(dir, "count")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// result is how a process ended, and what it said.
type result struct {
	code           int // 128+N where signal N killed it
	stdout, stderr string
}

func runCmd(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	cmd.Stderr = &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd, err)
	}
	return result{statusOf(cmd.ProcessState), out.String(), errs.String()}
}

// withoutNotes drops what weir always says in these tests.
func withoutNotes(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if !strings.Contains(line, "there is no policy") {
			b.WriteString(line)
		}
	}
	return b.String()
}
