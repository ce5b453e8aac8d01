//go:build linux

package discover

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fake is an engine that answers with what testdata/engine has of a real one, Docker
// 20.10, or with what a test puts in its place.
type fake struct {
	t      *testing.T
	server *httptest.Server
	socket string

	mu      sync.Mutex
	bodies  map[string]string   // by path without version
	blocked map[string]chan int // requests wait here
	streams map[chan string]bool
	asked   map[string]int
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, bodies: map[string]string{}, blocked: map[string]chan int{}, streams: map[chan string]bool{}, asked: map[string]int{}}
	// The path of a unix socket has at most 107 bytes.
	dir, err := os.MkdirTemp("", "engine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f.socket = filepath.Join(dir, "s")
	f.start()
	t.Cleanup(f.stop)
	f.set("/containers/json", "[]")
	return f
}

func (f *fake) start() {
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		f.t.Fatal(err)
	}
	f.server = &httptest.Server{Listener: l, Config: &http.Server{Handler: f}}
	f.server.Start()
}

func (f *fake) stop() {
	f.cut()
	f.mu.Lock()
	for path, c := range f.blocked {
		close(c)
		delete(f.blocked, path)
	}
	f.mu.Unlock()
	f.server.Close()
}

func (f *fake) set(path, body string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bodies[path] = body
}

// block makes requests for a path wait until the returned function is called.
func (f *fake) block(path string) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan int)
	f.blocked[path] = c
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.blocked[path] == c {
			close(c)
			delete(f.blocked, path)
		}
	}
}

// send sends text to everybody who follows the events. It waits until somebody does.
func (f *fake) send(text string) {
	f.t.Helper()
	eventually(f.t, "nobody follows the events", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for c := range f.streams {
			c <- text
		}
		return len(f.streams) > 0
	})
}

func (f *fake) event(typ, action, id string) {
	f.t.Helper()
	f.send(eventText(typ, action, id))
}

func eventText(typ, action, id string) string {
	if typ == "network" {
		return fmt.Sprintf(`{"Type":"network","Action":%q,"Actor":{"ID":"n","Attributes":{"container":%q}}}`+"\n", action, id)
	}
	return fmt.Sprintf(`{"Type":%q,"Action":%q,"Actor":{"ID":%q}}`+"\n", typ, action, id)
}

// cut ends the streams of events.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.streams {
		close(c)
		delete(f.streams, c)
	}
}

func (f *fake) requests(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[path]
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/_ping" {
		f.mu.Lock()
		version, ok := f.bodies["version"]
		f.mu.Unlock()
		if !ok {
			version = "1.41"
		}
		w.Header().Set("Api-Version", version)
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1.41")
	if !ok {
		http.Error(w, `{"message":"client version is not what was negotiated"}`, http.StatusBadRequest)
		return
	}
	if path == "/events" {
		f.follow(w, r)
		return
	}
	if strings.Contains(r.URL.Query().Get("filters"), "id") {
		path += "?id"
	}
	f.mu.Lock()
	f.asked[path]++
	wait := f.blocked[path]
	f.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-r.Context().Done():
			return
		}
	}
	f.mu.Lock()
	body, ok := f.bodies[path]
	f.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		body = `{"message":"No such container"}`
	}
	fmt.Fprintln(w, body)
}

func (f *fake) follow(w http.ResponseWriter, r *http.Request) {
	c := make(chan string, 16)
	f.mu.Lock()
	f.streams[c] = true
	f.mu.Unlock()
	w.(http.Flusher).Flush()
	defer func() {
		f.mu.Lock()
		delete(f.streams, c)
		f.mu.Unlock()
	}()
	for {
		select {
		case text, ok := <-c:
			if !ok {
				return
			}
			fmt.Fprint(w, text)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// put makes the engine have containers, and no others.
func (f *fake) put(list ...testContainer) {
	var all []map[string]any
	for _, c := range list {
		f.set("/containers/"+c.id()+"/json", c.inspect())
		state := "exited"
		if c.pid != 0 {
			state = "running"
		}
		all = append(all, map[string]any{"Id": c.id(), "Names": []string{"/" + c.name}, "State": state, "ImageID": testImage})
	}
	b, err := json.Marshal(all)
	if err != nil {
		f.t.Fatal(err)
	}
	f.set("/containers/json", string(b))
	f.set("/images/"+testImage+"/json", `{"Config":{"Labels":null}}`)
}

var testImage = "sha256:" + strings.Repeat("a", 64)

// testContainer is a container of tests. Its id follows from its number.
type testContainer struct {
	number int
	name   string
	pid    int
	mode   string
	labels map[string]string
}

func (c testContainer) id() string { return fmt.Sprintf("%064x", c.number) }

func (c testContainer) inspect() string {
	b, err := json.Marshal(map[string]any{
		"Id": c.id(), "Name": "/" + c.name, "Image": testImage,
		"State":      map[string]any{"Running": c.pid != 0, "Pid": c.pid},
		"Config":     map[string]any{"Image": "web:1", "Labels": c.labels},
		"HostConfig": map[string]any{"NetworkMode": c.mode, "CapDrop": []string{"NET_RAW"}},
	})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// testMachine is a /proc and a cgroup tree made of files.
type testMachine struct {
	t *testing.T
	machine
}

func newMachine(t *testing.T) *testMachine {
	return &testMachine{t, machine{proc: t.TempDir(), cgroups: t.TempDir(), netns: "net:[1]"}}
}

// process makes a process of a container in a network namespace.
func (m *testMachine) process(pid, netns int, group string, nspid ...int) {
	m.t.Helper()
	dir := filepath.Join(m.proc, strconv.Itoa(pid))
	m.kill(pid)
	m.mkdir(filepath.Join(dir, "ns"))
	if err := os.Symlink(fmt.Sprintf("net:[%d]", netns), filepath.Join(dir, "ns/net")); err != nil {
		m.t.Fatal(err)
	}
	m.write(filepath.Join(dir, "cgroup"), "4:memory:/x\n0::"+group+"\n")
	status := "Name:\tx\nNSpid:\t" + strconv.Itoa(pid)
	for _, n := range nspid {
		status += "\t" + strconv.Itoa(n)
	}
	m.write(filepath.Join(dir, "status"), status+"\nVmPeak:\t1 kB\n")
}

func (m *testMachine) kill(pid int) {
	m.t.Helper()
	if err := os.RemoveAll(filepath.Join(m.proc, strconv.Itoa(pid))); err != nil {
		m.t.Fatal(err)
	}
}

// group makes a cgroup with processes in it.
func (m *testMachine) group(group string, pids ...int) {
	m.t.Helper()
	m.mkdir(filepath.Join(m.cgroups, group))
	var text string
	for _, pid := range pids {
		text += strconv.Itoa(pid) + "\n"
	}
	m.write(filepath.Join(m.cgroups, group, "cgroup.procs"), text)
}

func (m *testMachine) mkdir(dir string) {
	m.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		m.t.Fatal(err)
	}
}

func (m *testMachine) write(file, text string) {
	m.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// sets are what Watch calls changed with, as text.
type sets struct {
	t    *testing.T
	list chan string

	mu  sync.Mutex
	err error // what changed returns
}

func (s *sets) changed(list []Container) error {
	s.list <- describe(list)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *sets) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

const testTimeout = 20 * time.Second

// next is the next set.
func (s *sets) next() string {
	s.t.Helper()
	select {
	case got := <-s.list:
		return got
	case <-time.After(testTimeout):
		s.t.Fatal("changed is not called")
		return ""
	}
}

// want fails unless that is the next set.
func (s *sets) want(want string) {
	s.t.Helper()
	if diff := cmp.Diff(want, s.next()); diff != "" {
		s.t.Fatalf("set (-want +got):\n%s", diff)
	}
}

// until waits for a set, over others.
func (s *sets) until(want string) {
	s.t.Helper()
	got := s.next()
	for end := time.Now().Add(testTimeout); got != want; got = s.next() {
		if time.Now().After(end) {
			s.t.Fatalf("set (-want +got):\n%s", cmp.Diff(want, got))
		}
	}
}

// none fails if there was another set.
func (s *sets) none() {
	s.t.Helper()
	select {
	case got := <-s.list:
		s.t.Fatalf("changed was called: %s", got)
	default:
	}
}

// describe is a set as text, a line for each container.
func describe(list []Container) string {
	var b strings.Builder
	for _, c := range list {
		fmt.Fprintf(&b, "%s %.4s", c.Workload.Name, strings.TrimLeft(c.ID, "0"))
		if c.Workload.PID != 0 {
			fmt.Fprintf(&b, " pid %d", c.Workload.PID)
		}
		if c.Workload.Cgroup != "" {
			fmt.Fprintf(&b, " cgroup %s", filepath.Dir(c.Workload.Cgroup))
		}
		if len(c.Shares) > 0 {
			fmt.Fprintf(&b, " with %v", c.Shares)
		}
		if len(c.Holds) > 0 {
			fmt.Fprintf(&b, " holds %v", c.Holds)
		}
		if c.Workload.Unconfined && len(c.Holds) > 0 {
			b.WriteString(" unconfined")
		}
		if c.Refused != "" {
			fmt.Fprintf(&b, " refused: %s", c.Refused)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// startWatch runs a watch until the test ends.
func startWatch(t *testing.T, f *fake, m *testMachine, cfg Config) *sets {
	t.Helper()
	s := &sets{t: t, list: make(chan string, 1000)}
	cfg.Socket, cfg.backoff = f.socket, 50*time.Millisecond
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	done := make(chan error, 1)
	ctx := t.Context()
	go func() { done <- watch(ctx, cfg, &m.machine, s.changed) }()
	t.Cleanup(func() { // ctx is done by now
		if err := <-done; err != nil {
			t.Errorf("watch: %v", err)
		}
	})
	return s
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(testTimeout)
	for !f() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal(what)
		}
	}
}

// serveRecorded puts testdata/engine into the engine and returns the containers'
// processes.
func serveRecorded(t *testing.T, f *fake) map[string]int {
	t.Helper()
	f.set("/containers/json", recorded(t, "containers"))
	pids := map[string]int{}
	for _, name := range []string{"shop-web-1", "sidecar", "tool", "once", "plain"} {
		var c inspected
		if err := json.Unmarshal([]byte(recorded(t, name)), &c); err != nil {
			t.Fatal(err)
		}
		f.set("/containers/"+c.ID+"/json", recorded(t, name))
		f.set("/images/"+c.Image+"/json", recorded(t, "image"))
		pids[name] = c.State.Pid
	}
	return pids
}
