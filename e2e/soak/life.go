//go:build linux

package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// now is the machine's monotonic clock, which all processes share.
func now() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// must is the outcome of each kind of request while weir lives.
var must = map[string]string{"public": "200", "denied": "403", "other": "refused"}

// life is one weir run from start to end, by whichever way it goes.
func (t *torture) life(records string) {
	defer os.Remove(records)
	self, err := os.Executable()
	if err != nil {
		t.fail("%v", err)
		return
	}
	inR, inW, err1 := os.Pipe()
	outR, outW, err2 := os.Pipe()
	if err1 != nil || err2 != nil {
		t.fail("make pipes: %v, %v", err1, err2)
		return
	}
	defer inW.Close()
	defer outR.Close()
	cmd := exec.Command(t.weir, "run", "--policy", t.policy, "--log", records, "--", self, "client",
		fmt.Sprint(t.web.Port), fmt.Sprint(t.other.Port))
	said, err := os.Create(records + ".stderr")
	if err != nil {
		t.fail("%v", err)
		return
	}
	defer said.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, said
	err = cmd.Start()
	inR.Close()
	outW.Close()
	if err != nil {
		t.fail("start weir: %v", err)
		return
	}
	t.count("run")

	// Set before the signal is sent and after weir was reaped.
	var stopping, dead atomic.Int64
	started, checked := make(chan int, 1), make(chan struct{})
	var deadRequests sync.WaitGroup
	deadRequests.Add(1)
	go func() {
		defer close(checked)
		seen := 0
		lines := bufio.NewScanner(outR)
		for lines.Scan() {
			var kind, outcome string
			var from, to int64
			var pid int
			if n, _ := fmt.Sscanf(lines.Text(), "pid %d", &pid); n == 1 {
				started <- pid
				continue
			}
			if _, err := fmt.Sscanf(lines.Text(), "%s %d %d %s", &kind, &from, &to, &outcome); err != nil {
				t.fail("client wrote %q", lines.Text())
				continue
			}
			if d, s := dead.Load(), stopping.Load(); d > 0 && from > d {
				t.count("dead")
				if seen++; seen == 20 {
					deadRequests.Done()
				}
				if outcome == "200" || outcome == "403" {
					t.fail("%s: %s after weir was killed", kind, outcome)
				}
			} else if outcome == must[kind] {
				t.count(kind + " " + outcome)
			} else if s > 0 && to >= s && outcome != "200" && outcome != "timeout" {
				t.count("cut")
			} else {
				t.fail("%s: %s, not %s", kind, lines.Text(), must[kind])
			}
		}
		if seen < 20 {
			deadRequests.Done()
		}
	}()

	var pid int
	select {
	case pid = <-started:
	case <-checked:
		err := cmd.Wait()
		text, _ := os.ReadFile(said.Name())
		t.fail("weir ended before its command started: %v: %s", err, text)
		return
	}
	time.Sleep(time.Duration(rand.IntN(1500)) * time.Millisecond)
	switch rand.IntN(4) {
	case 0, 1:
		t.count("kill")
		stopping.Store(now())
		cmd.Process.Kill()
		cmd.Process.Wait()
		dead.Store(now())
		waitOr(&deadRequests, 20*time.Second)
		inW.Close() // the command outlives its weir, and ends with its stdin
	case 2:
		t.count("term")
		stopping.Store(now())
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Process.Wait()
	default:
		t.count("end")
		inW.Close()
		if state, err := cmd.Process.Wait(); err != nil || !state.Success() {
			t.fail("weir whose command ended well: %v, %v", state, err)
		}
	}
	select {
	case <-checked:
	case <-time.After(30 * time.Second):
		t.fail("the command did not end")
		syscall.Kill(pid, syscall.SIGKILL)
		<-checked
	}
	t.checkRecords(records)
}

// checkRecords looks for requests that weir could not carry. At the end of a run,
// what is on its way is given up.
func (t *torture) checkRecords(file string) {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, " ERROR ") && !strings.Contains(line, "operation was canceled") {
			t.fail("a record says: %s", line)
		}
	}
}

func waitOr(wg *sync.WaitGroup, limit time.Duration) {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(limit):
	}
}
