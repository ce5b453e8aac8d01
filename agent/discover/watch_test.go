//go:build linux

package discover

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRecorded shows what the containers of testdata/engine, which a real engine told
// of, become: web of a compose project without NET_RAW and a container that joined its
// namespace, a tool with the host's network and CAP_NET_ADMIN, one that has ended, and
// a plain one.
func TestRecorded(t *testing.T) {
	f, m := newFake(t), newMachine(t)
	pids := serveRecorded(t, f)
	const parent = "/wdt/c/"
	m.process(pids["shop-web-1"], 2, parent+"a")
	m.process(pids["sidecar"], 2, parent+"b")
	m.process(pids["tool"], 1, parent+"c")
	m.process(pids["plain"], 3, parent+"d")
	s := startWatch(t, f, m, Config{})
	web := fmt.Sprintf("default/shop-web-1 541b pid %d with [sidecar] holds [NET_RAW] unconfined\n", pids["shop-web-1"])
	tool := "default/tool 416e cgroup /wdt/c holds [NET_ADMIN NET_RAW]\n"
	plain := fmt.Sprintf("default/plain 3070 pid %d holds [NET_RAW] unconfined\n", pids["plain"])
	s.want(plain + web + tool)
	// The events of their lives change nothing about it.
	events, err := os.ReadFile("testdata/engine/events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	f.send(string(events))
	plainID := "3070f8640d0ea0314226b579f7cf0cdee12a61b9dcf42eb4ca4d36dfbc8a3209"
	before := f.requests("/containers/" + plainID + "/json")
	f.event("container", "start", plainID)
	eventually(t, "nobody looks", func() bool { return f.requests("/containers/"+plainID+"/json") > before })
	// But this does.
	f.set("/containers/"+plainID+"/json", strings.Replace(recorded(t, "plain"), `"/plain"`, `"/renamed"`, 1))
	f.event("container", "rename", plainID)
	s.want(strings.Replace(plain, "plain", "renamed", 1) + web + tool)
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"by label", Config{Labels: map[string]string{"app": "web"}}, "default/shop-web-1 541b pid 10 with [sidecar] holds [NET_RAW] unconfined\n"},
		{"by a label of the image", Config{Labels: map[string]string{"fromimage": "yes"}},
			"default/plain 3070 pid 13 holds [NET_RAW] unconfined\ndefault/shop-web-1 541b pid 10 with [sidecar] holds [NET_RAW] unconfined\n" +
				"default/tool 416e cgroup /c holds [NET_ADMIN NET_RAW]\n"},
		{"nobody", Config{Labels: map[string]string{"app": "other"}}, ""},
		{"all of the labels", Config{Labels: map[string]string{"app": "web", "fromimage": "no"}}, ""},
		{"unconfined by name", Config{Unconfined: []string{"tool"}, Labels: map[string]string{"fromimage": "yes"}},
			"default/plain 3070 pid 13 holds [NET_RAW] unconfined\ndefault/shop-web-1 541b pid 10 with [sidecar] holds [NET_RAW] unconfined\n" +
				"default/tool 416e cgroup /c holds [NET_ADMIN NET_RAW] unconfined\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, m := newFake(t), newMachine(t)
			pids := serveRecorded(t, f)
			m.process(pids["shop-web-1"], 2, "/c/a")
			m.process(pids["sidecar"], 2, "/c/b")
			m.process(pids["tool"], 1, "/c/c")
			m.process(pids["plain"], 3, "/c/d")
			want := strings.NewReplacer("pid 10", fmt.Sprint("pid ", pids["shop-web-1"]), "pid 13", fmt.Sprint("pid ", pids["plain"])).Replace(c.want)
			startWatch(t, f, m, c.cfg).want(want)
		})
	}
}

// A container whose namespace cannot be judged is not silently left out.
func TestRefused(t *testing.T) {
	f, m := newFake(t), newMachine(t)
	f.put(
		testContainer{number: 0xa1, name: "other-host", pid: 10, mode: "host"},
		testContainer{number: 0xa2, name: "no-cgroup", pid: 11, mode: "host"},
	)
	m.process(10, 7, "/docker/a")
	m.process(11, 1, "/")
	startWatch(t, f, m, Config{}).want(
		"default/no-cgroup a2 cgroup / refused: it uses the host's network and has no cgroup of its own in cgroup v2\n" +
			"default/other-host a1 pid 10 refused: it uses the host's network, but another one than the agent: run the agent in the host's network namespace\n")
}

// A container becomes a workload before its command runs: the engine says that it is
// being connected, and nothing else before it is done.
func TestBeforeItsCommand(t *testing.T) {
	for _, parent := range []string{"/docker", "/system.slice", "/set/for/the/engine"} {
		t.Run(parent, func(t *testing.T) {
			f, m := newFake(t), newMachine(t)
			s := startWatch(t, f, m, Config{})
			s.want("")
			web := testContainer{number: 0xa1, name: "web"}
			f.put(web)
			f.event("container", "create", web.id())
			eventually(t, "nobody looks", func() bool { return f.requests("/containers/"+web.id()+"/json") == 1 })
			release := f.block("/containers/" + web.id() + "/json")
			f.event("network", "connect", web.id())

			name := web.id()
			if parent == "/system.slice" {
				name = "docker-" + name + ".scope"
			}
			group := filepath.Join(parent, name)
			m.process(20, 1, group)    // the runtime before it has made namespaces
			m.process(21, 2, group)    // and on its way
			m.process(22, 1, group, 1) // the namespaces, but for that of the network
			m.group(group, 20, 21, 22)
			m.process(22, 2, group, 1)
			s.want("default/web a1 pid 22\n")

			web.pid = 22
			f.put(web)
			release()
			f.event("container", "start", web.id())
			eventually(t, "nobody looks", func() bool { return f.requests("/containers/"+web.id()+"/json") > 2 })
			web.pid = 0
			f.put(web)
			m.kill(22)
			f.event("container", "die", web.id())
			s.want("")
		})
	}
}

// The same where the engine does not even say what was created: its books do.
func TestCreatedWhileStarting(t *testing.T) {
	f, m := newFake(t), newMachine(t)
	s := startWatch(t, f, m, Config{})
	s.want("")
	web := testContainer{number: 0xa1, name: "web"}
	defer f.block("/containers/" + web.id() + "/json")()
	f.put(web)
	f.set("/containers/json?id", fmt.Sprintf(`[{"Id":%q,"Names":["/other/alias","/web"],"Image":"web:1","ImageID":%q}]`, web.id(), testImage))
	f.event("container", "create", web.id())
	f.event("network", "connect", web.id())
	m.process(22, 2, "/docker/"+web.id(), 1)
	m.group("/docker/"+web.id(), 22)
	// Its capabilities are not known yet: Docker's own are assumed.
	s.want("default/web a1 pid 22 holds [NET_RAW] unconfined\n")
	// The command is not found.
	m.kill(22)
	s.want("")
}

func TestHostNetworkBeforeItsCommand(t *testing.T) {
	f, m := newFake(t), newMachine(t)
	s := startWatch(t, f, m, Config{})
	s.want("")
	tool := testContainer{number: 0xa1, name: "tool", mode: "host"}
	f.put(tool)
	f.event("container", "create", tool.id())
	eventually(t, "nobody looks", func() bool { return f.requests("/containers/"+tool.id()+"/json") == 1 })
	defer f.block("/containers/" + tool.id() + "/json")()
	f.event("network", "connect", tool.id())
	m.process(22, 1, "/docker/"+tool.id(), 1)
	m.group("/docker/"+tool.id(), 22)
	s.want("default/tool a1 cgroup /docker\n")
}

func TestComeAndGo(t *testing.T) {
	f, m := newFake(t), newMachine(t)
	s := startWatch(t, f, m, Config{})
	s.want("")
	a := testContainer{number: 0xa1, name: "a", pid: 10}
	b := testContainer{number: 0xb1, name: "b", pid: 11, mode: "container:" + a.id()}
	m.process(10, 2, "/docker/a")
	m.process(11, 2, "/docker/b")
	f.put(a)
	f.event("container", "start", a.id())
	s.want("default/a a1 pid 10\n")
	f.put(a, b)
	f.event("container", "start", b.id())
	s.want("default/a a1 pid 10 with [b]\n")
	// Restarted, it has a new namespace. Who joined the old one is left there alone.
	m.kill(10)
	m.process(12, 3, "/docker/a")
	a.pid = 12
	f.put(a, b)
	f.event("container", "die", a.id())
	s.until("default/a a1 pid 12\ndefault/b b1 pid 11\n")
	f.put(a)
	f.set("/containers/"+b.id()+"/json", "")
	delete(f.bodies, "/containers/"+b.id()+"/json")
	f.event("container", "destroy", b.id())
	s.want("default/a a1 pid 12\n")
}

// What happened while nobody followed is seen afterwards.
func TestReconnect(t *testing.T) {
	f, m := newFake(t), newMachine(t)
	a := testContainer{number: 0xa1, name: "a", pid: 10}
	b := testContainer{number: 0xb1, name: "b", pid: 11}
	m.process(10, 2, "/docker/a")
	m.process(11, 3, "/docker/b")
	f.put(a)
	s := startWatch(t, f, m, Config{})
	s.want("default/a a1 pid 10\n")
	f.put(a, b)
	f.cut()
	s.want("default/a a1 pid 10\ndefault/b b1 pid 11\n")
	// The engine restarts, with a container less and one renamed.
	f.stop()
	s.none() // what was the set, stays
	b.name = "c"
	f.put(b)
	m.kill(10)
	f.start()
	s.until("default/c b1 pid 11\n")
	// It follows again.
	m.kill(11)
	b.pid = 0
	f.put(b)
	f.event("container", "die", b.id())
	s.want("")
}

// An engine that is not there yet is waited for.
func TestLateEngine(t *testing.T) {
	f, m := newFake(t), newMachine(t)
	a := testContainer{number: 0xa1, name: "a", pid: 10}
	m.process(10, 2, "/docker/a")
	f.put(a)
	f.stop()
	s := startWatch(t, f, m, Config{})
	s.none()
	f.start()
	s.want("default/a a1 pid 10\n")
}

// An event that never came loses nothing for long.
func TestMissedEvent(t *testing.T) {
	f, m := newFake(t), newMachine(t)
	s := startWatch(t, f, m, Config{relist: 10 * time.Millisecond})
	s.want("")
	a := testContainer{number: 0xa1, name: "a", pid: 10}
	m.process(10, 2, "/docker/a")
	f.put(a)
	s.want("default/a a1 pid 10\n")
	// Restarted, between two looks: the list shows no difference, its process does.
	m.kill(10)
	m.process(12, 4, "/docker/a")
	a.pid = 12
	f.put(a)
	s.until("default/a a1 pid 12\n")
	f.put()
	s.want("")
}

func TestStorm(t *testing.T) {
	f, m := newFake(t), newMachine(t)
	s := startWatch(t, f, m, Config{})
	s.want("")
	var all []testContainer
	var want []string
	for i := range maxPending + 100 {
		c := testContainer{number: 0xa0000 + i, name: fmt.Sprintf("c%d", i)}
		if i%100 == 0 {
			c.pid = 1000 + i
			m.process(c.pid, 1000+i, "/docker/x")
			want = append(want, fmt.Sprintf("default/%s %.4s pid %d\n", c.name, fmt.Sprintf("%x", c.number), c.pid))
		}
		all = append(all, c)
	}
	slices.Sort(want)
	f.put(all...)
	var b strings.Builder
	for range 4 {
		for _, c := range all {
			b.WriteString(eventText("container", "start", c.id()))
			b.WriteString(eventText("network", "connect", c.id()))
			b.WriteString(eventText("container", "exec_start: sh", c.id()))
			b.WriteString(eventText("container", "start", "not an id/../.."))
		}
	}
	f.send(b.String())
	s.until(strings.Join(want, ""))
}

// What the engine says of one container does not stand in the way of others.
func TestMalformed(t *testing.T) {
	f, m := newFake(t), newMachine(t)
	a := testContainer{number: 0xa1, name: "a", pid: 10}
	b := testContainer{number: 0xb1, name: "b", pid: 11}
	m.process(10, 2, "/docker/a")
	m.process(11, 3, "/docker/b")
	f.put(a, b)
	path := "/containers/" + b.id() + "/json"
	f.set(path, `{"Id":"`)
	s := startWatch(t, f, m, Config{})
	s.want("default/a a1 pid 10\n")
	for _, body := range []string{
		`[]`, `{}`, `{"Id":7}`, a.inspect(), `{"Id":"` + b.id() + `","State":{"Running":true,"Pid":11}}`,
		strings.NewReplacer(testImage, "../../_ping", `"Labels":null`, `"Labels":{"a":"b"}`).Replace(b.inspect()), `{"Id":"` + strings.Repeat("x", maxInspect) + `"}`,
	} {
		f.set(path, body)
		n := f.requests(path)
		eventually(t, "not tried again", func() bool { return f.requests(path) > n+1 })
		s.none()
	}
	f.put(a, b)
	s.want("default/a a1 pid 10\ndefault/b b1 pid 11\n")

	// A stream that cannot be read is begun anew, and what it may have said is asked.
	for _, text := range []string{"]", `{"Type":1}`, `{"Type":"` + strings.Repeat("x", maxEvent) + `"}`} {
		b.name += "b"
		f.put(a, b)
		f.send(text)
		s.want("default/a a1 pid 10\ndefault/" + b.name + " b1 pid 11\n")
	}
	f.set("/containers/json", `{"message":"not a list"}`)
	f.cut()
	n := f.requests("/containers/json")
	eventually(t, "not tried again", func() bool { return f.requests("/containers/json") > n+2 })
	f.put(a)
	s.want("default/a a1 pid 10\n")
}

// A container may be gone, or its process be another's, when the engine is asked.
func TestGoneBeforeItIsLookedAt(t *testing.T) {
	f, m := newFake(t), newMachine(t)
	s := startWatch(t, f, m, Config{})
	s.want("")
	a := testContainer{number: 0xa1, name: "a"}
	f.event("container", "create", a.id())
	f.event("container", "start", a.id())
	path := "/containers/" + a.id() + "/json"
	eventually(t, "nobody looks", func() bool { return f.requests(path) > 0 })
	// The engine still says that it runs, but its process is gone.
	a.pid = 10
	f.put(a)
	n := f.requests(path)
	f.event("container", "start", a.id())
	eventually(t, "nobody looks", func() bool { return f.requests(path) > n })
	b := testContainer{number: 0xb1, name: "b", pid: 11}
	m.process(11, 3, "/docker/b")
	f.put(a, b)
	f.event("container", "start", b.id())
	s.want("default/b b1 pid 11\n")
}

// What could not be done is asked for again.
func TestErrorOfChanged(t *testing.T) {
	f, m := newFake(t), newMachine(t)
	a := testContainer{number: 0xa1, name: "a", pid: 10}
	m.process(10, 2, "/docker/a")
	f.put(a)
	s := startWatch(t, f, m, Config{})
	s.want("default/a a1 pid 10\n")
	s.fail(errors.New("no room"))
	a.name = "b"
	f.put(a)
	f.event("container", "rename", a.id())
	s.want("default/b a1 pid 10\n")
	s.want("default/b a1 pid 10\n")
	s.fail(nil)
	a.name = "c"
	f.put(a)
	f.event("container", "rename", a.id())
	s.until("default/c a1 pid 10\n")
}

// The first set waits for every container that runs, but not for ever.
func TestFirstSet(t *testing.T) {
	f, m := newFake(t), newMachine(t)
	var all []testContainer
	for i := range 100 {
		all = append(all, testContainer{number: 0xa00 + i, name: fmt.Sprintf("c%d", i), pid: 100 + i})
		m.process(100+i, 100+i, "/docker/x")
	}
	f.put(all...)
	release := f.block("/containers/" + all[7].id() + "/json")
	s := startWatch(t, f, m, Config{})
	if n := strings.Count(s.next(), "\n"); n != 99 {
		t.Fatalf("%d containers, want 99", n)
	}
	release()
	if n := strings.Count(s.next(), "\n"); n != 100 {
		t.Fatalf("%d containers, want 100", n)
	}
}

func TestVersions(t *testing.T) {
	for version, want := range map[string]string{
		"1.40": "/v1.40", "1.51": "/v1.51", "1.99": "/v1.51", "1.39": "update docker", "": "names no API version", "2.0": "names no API version", "1.x": "names no API version",
	} {
		f := newFake(t)
		f.set("version", version)
		e := newEngine(f.socket)
		err := e.negotiate(t.Context())
		got := e.prefix
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("version %q: %q, want %q", version, got, want)
		}
		e.close()
	}
}

// An engine's own words reach the log.
func TestEngineErrors(t *testing.T) {
	for _, c := range []struct {
		status     int
		body, want string
	}{
		{500, `{"message":"the disk is full"}`, "500: the disk is full"},
		{503, `<html>`, "503: Service Unavailable"},
		{400, `{"message":"` + strings.Repeat("x", 2*maxMessage) + `"}`, "400: Bad Request"},
		{404, `{"message":"No such container"}`, errGone.Error()},
	} {
		f := newFake(t)
		f.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		})
		e := newEngine(f.socket)
		if _, err := e.inspect(t.Context(), "x"); err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%d: %v, want %s", c.status, err, c.want)
		}
		e.close()
	}
}

func TestWatchConfig(t *testing.T) {
	if err := Watch(t.Context(), Config{}, nil); err == nil || !strings.Contains(err.Error(), "cgroup v2") {
		t.Errorf("without the root of cgroup v2: %v", err)
	}
}

// recorded is what the real engine said.
func recorded(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/engine", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
