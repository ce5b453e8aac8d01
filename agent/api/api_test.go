//go:build linux

package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/agent"
	"github.com/weir-proxy/weir/agent/records"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// testAgent answers on a socket with a status.
type testAgent struct {
	socket string
	ring   *Ring
	client *Client
	stop   func()
}

func startAgent(t *testing.T, status agent.Status) *testAgent {
	t.Helper()
	a := &testAgent{socket: filepath.Join(t.TempDir(), "run", "agent.sock"), ring: NewRing()}
	l, err := Listen(a.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, func() agent.Status { return status }, a.ring) }()
	stopped := false
	a.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		l.Release()
	}
	t.Cleanup(a.stop)
	a.client = NewClient(a.socket)
	return a
}

func TestStatus(t *testing.T) {
	want := agent.Status{PID: 7, Started: time.Unix(1000, 0).UTC(), Endpoints: []agent.EndpointStatus{{Name: "shop/orders", State: agent.Ready}}}
	a := startAgent(t, want)
	got, err := a.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&want, got); d != "" {
		t.Error(d)
	}
	fi, err := os.Stat(a.socket)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", fi, err)
	}
	a.stop()
	if left, _ := os.ReadDir(filepath.Dir(a.socket)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := a.client.Status(t.Context()); !errors.Is(err, ErrNoAgent) || !strings.Contains(err.Error(), "weir agent --config") {
		t.Errorf("%v", err)
	}
}

func TestNotThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := NewClient(path).Status(t.Context()); !errors.Is(err, ErrNoAgent) || !strings.Contains(err.Error(), "any more") {
		t.Errorf("dead: %v", err)
	}
	// A dead agent's socket is taken over.
	again, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	again.Release()
}

func TestOneAgentPerSocket(t *testing.T) {
	a := startAgent(t, agent.Status{})
	_, err := Listen(a.socket)
	if !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d) on %s:", os.Getpid(), a.socket)) {
		t.Errorf("%v", err)
	}
	if _, err := a.client.Status(t.Context()); err != nil {
		t.Errorf("the first one: %v", err)
	}
	a.stop()
	for range 3 {
		l, err := Listen(a.socket)
		if err != nil {
			t.Fatal(err)
		}
		l.Release()
	}
}

// The lock goes with its process, however that ends.
func TestKilledAgent(t *testing.T) {
	if path := os.Getenv("LISTEN_ON"); path != "" {
		if _, err := Listen(path); err != nil {
			fmt.Println(err)
		}
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
		return
	}
	path := filepath.Join(t.TempDir(), "a.sock")
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledAgent$")
	cmd.Env = append(os.Environ(), "LISTEN_ON="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q %v", line, err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
		t.Errorf("%v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                                 "is no socket",
		filepath.Join(file, "a.sock"):        "make directory of socket",
		filepath.Join("/proc", "a.sock"):     "lock socket",
		dir + "/" + strings.Repeat("a", 150): "make socket",
	} {
		if l, err := Listen(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", path, l, err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file is %q, %v", b, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.lock")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRecords(t *testing.T) {
	a := startAgent(t, agent.Status{})
	for i := range 100 {
		rec := record(i)
		if i == 50 {
			rec.Verdict = flow.Forwarded
		}
		a.ring.Sink(rec)
	}
	for _, c := range []struct {
		q     Query
		lines int
		has   string
	}{
		{Query{Last: 20, Format: records.Compact}, 20, "DROPPED number 99.\n"},
		{Query{Last: 1000, Format: records.JSON}, 100, `"reason":"number 0."`},
		{Query{Last: 10, Format: records.JSON, Filter: Filter{Verdicts: []string{"forwarded"}}}, 1, `"reason":"number 50."`},
		{Query{Last: 10, Format: records.Compact, Filter: Filter{Types: []string{"http"}}}, 0, ""},
		{Query{Last: 0, Format: records.Compact}, 0, ""},
	} {
		var b bytes.Buffer
		if err := a.client.Records(t.Context(), c.q, &b); err != nil {
			t.Errorf("%+v: %v", c.q, err)
		}
		if got := b.String(); strings.Count(got, "\n") != c.lines || !strings.Contains(got, c.has) {
			t.Errorf("%+v: %s", c.q, got)
		}
	}
	for _, q := range []Query{{Format: "xml"}, {Format: records.JSON, Last: -1}, {Format: records.JSON, Filter: Filter{Verdicts: []string{"no"}}}} {
		if err := a.client.Records(t.Context(), q, io.Discard); err == nil {
			t.Errorf("%+v: no error", q)
		}
	}
}

// A record is there soon after it was made, and the end of the agent is told.
func TestObserve(t *testing.T) {
	a := startAgent(t, agent.Status{})
	a.ring.Sink(record(0))
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- a.client.Records(t.Context(), Query{Last: 1, Follow: true, Format: records.Compact}, w)
		w.Close()
	}()
	lines := bufio.NewReader(r)
	for i := range 5 {
		line, err := lines.ReadString('\n')
		if err != nil || numbers(t, line)[0] != i {
			t.Fatalf("%q, %v", line, err)
		}
		a.ring.Sink(record(i + 1))
	}
	go io.Copy(io.Discard, lines)
	a.stop()
	if err := <-ended; !errors.Is(err, ErrEnded) {
		t.Errorf("%v", err)
	}
}

func TestObserverLeaves(t *testing.T) {
	a := startAgent(t, agent.Status{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	r, w := io.Pipe()
	a.ring.Sink(record(0))
	go func() { ended <- a.client.Records(ctx, Query{Last: 1, Follow: true, Format: records.Compact}, w) }()
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// An observer that does not read neither holds anybody up nor is lied to.
func TestSlowObserver(t *testing.T) {
	a := startAgent(t, agent.Status{})
	conn, err := net.Dial("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a.ring.Sink(record(0))
	fmt.Fprint(conn, "GET /records?follow&last=1&format=compact HTTP/1.1\r\nHost: agent\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
	if err != nil {
		t.Fatal(err)
	}
	const made = 10 * maxRecords // far more than ring and socket hold
	for i := range made {
		a.ring.Sink(record(i + 1))
	}
	seen, lost := 0, 0
	next := 0
	for lines := bufio.NewReader(resp.Body); seen+lost < made+1; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if _, err := fmt.Sscanf(line, "%d records lost: this observer was too slow", &n); err == nil {
			lost += n
			next += n
			continue
		}
		if got := numbers(t, line)[0]; got != next {
			t.Fatalf("record %d where %d should be", got, next)
		}
		seen++
		next++
	}
	if lost == 0 {
		t.Error("nothing was lost: the test does not test")
	}
}

// A server ends although an observer does not read.
func TestEndWithSlowObserver(t *testing.T) {
	a := startAgent(t, agent.Status{})
	conn, err := net.Dial("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range maxRecords {
		a.ring.Sink(record(i))
	}
	fmt.Fprintf(conn, "GET /records?follow&last=%d&format=compact HTTP/1.1\r\nHost: agent\r\n\r\n", maxRecords)
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	a.stop()
}

func TestManyObservers(t *testing.T) {
	a := startAgent(t, agent.Status{})
	a.ring.Sink(record(0))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range maxObservers {
		r, w := io.Pipe()
		go func() {
			a.client.Records(ctx, Query{Last: 1, Follow: true, Format: records.Compact}, w)
			w.Close()
		}()
		if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.client.Records(ctx, Query{Last: 1, Format: records.Compact}, io.Discard); err == nil || !strings.Contains(err.Error(), "observe the records already") {
		t.Errorf("%v", err)
	}
	if _, err := a.client.Status(ctx); err != nil {
		t.Error(err)
	}
}
