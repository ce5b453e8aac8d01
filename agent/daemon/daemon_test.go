//go:build linux

package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/agent"
	"github.com/weir-proxy/weir/agent/config"
	"github.com/weir-proxy/weir/agent/discover"
	"github.com/weir-proxy/weir/agent/records"
	"github.com/weir-proxy/weir/agent/watch"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// fakeCore notes what it is told. It refuses policies and addresses that are named
// "refused".
type fakeCore struct {
	mu        sync.Mutex
	calls     []string
	policies  []*l7rules.Policy
	addresses []agent.Address
	workloads []agent.Workload
}

var errRefused = errors.New("refused")

func (c *fakeCore) SetPolicies(list []*l7rules.Policy) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for _, p := range list {
		names = append(names, p.Name)
	}
	c.calls = append(c.calls, fmt.Sprint("policies ", names))
	for _, p := range list {
		if p.Name == "refused" {
			return errRefused
		}
	}
	c.policies = list
	return nil
}

func (c *fakeCore) SetAddresses(list []agent.Address) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for _, a := range list {
		names = append(names, a.Name)
	}
	c.calls = append(c.calls, fmt.Sprint("addresses ", names))
	for _, a := range list {
		if a.Name == "default/refused" {
			return errRefused
		}
	}
	c.addresses = list
	return nil
}

func (c *fakeCore) SetWorkloads(list []agent.Workload) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for _, w := range list {
		app, _ := w.Labels.Get("k8s", "app")
		names = append(names, w.Name+"="+app)
	}
	c.calls = append(c.calls, fmt.Sprint("workloads ", names))
	c.workloads = list
	return nil
}

// told returns the calls since the last time.
func (c *fakeCore) told() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := c.calls
	c.calls = nil
	return calls
}

// testDaemon is a daemon with files and a fakeCore.
type testDaemon struct {
	*daemon
	t    *testing.T
	dir  string
	core *fakeCore
	log  *bytes.Buffer
}

const someConfig = "policies: [p]\nworkloads: [{name: w, netns: w, labels: {app: a}}]\n"

func startDaemon(t *testing.T) *testDaemon {
	t.Helper()
	td := &testDaemon{t: t, dir: t.TempDir(), core: &fakeCore{}, log: &bytes.Buffer{}}
	td.write("agent.yaml", someConfig)
	td.write("p/a.yaml", policy("x/a", toHost))
	td.daemon = newDaemon(Options{Config: filepath.Join(td.dir, "agent.yaml"), Version: "v1", Stderr: td.log})
	td.daemon.core = td.core
	var err error
	if td.watch, err = watch.New(td.daemon.log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { td.watch.Close() })
	cfg, err := td.loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	set, err := loadPolicies(cfg.Policies)
	if err != nil {
		t.Fatal(err)
	}
	if err := td.daemon.start(cfg, set); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(td.out.close)
	td.expect("addresses []", "policies [a]", "workloads [default/w=a]")
	return td
}

func (td *testDaemon) write(name, text string) {
	td.t.Helper()
	path := filepath.Join(td.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		td.t.Fatal(err)
	}
	write1(td.t, path, text)
}

func (td *testDaemon) remove(name string) {
	td.t.Helper()
	if err := os.Remove(filepath.Join(td.dir, name)); err != nil {
		td.t.Fatal(err)
	}
}

func (td *testDaemon) expect(calls ...string) {
	td.t.Helper()
	if d := cmp.Diff(calls, td.core.told()); d != "" {
		td.t.Errorf("what the agent was told (-want +got)\n%s", d)
	}
}

// troubled checks what status says is wrong.
func (td *testDaemon) troubled(want string) {
	td.t.Helper()
	s := td.status(agent.Status{})
	if want == "" && s.Policy.Error != "" || !strings.Contains(s.Policy.Error, want) || s.Policy.Since.IsZero() != (want == "") {
		td.t.Errorf("status says %q since %v, want %q", s.Policy.Error, s.Policy.Since, want)
	}
	if s.Version != "v1" {
		td.t.Errorf("version %q", s.Version)
	}
}

// logged checks the log since the last time, a part of a line each.
func (td *testDaemon) logged(parts ...string) {
	td.t.Helper()
	text := td.log.String()
	td.log.Reset()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			td.t.Errorf("no %q in the log: %s", part, text)
		}
	}
	if n := strings.Count(text, "\n"); n != len(parts) {
		td.t.Errorf("%d lines in the log, not %d: %s", n, len(parts), text)
	}
}

func TestReloadPolicies(t *testing.T) {
	td := startDaemon(t)
	td.logged("policies are in force")
	td.troubled("")

	td.reloadPolicies() // nothing has changed
	td.expect()
	td.logged()

	td.write("p/b.yaml", policy("x/b", toHost)+policy("x/c", toWorld))
	td.reloadPolicies()
	td.expect("policies [a b c]")
	td.logged(`msg="policies are in force" documents=3 files=2 added=x/b,x/c`)

	td.write("p/b.yaml", policy("x/c", toHost))
	td.remove("p/a.yaml")
	td.reloadPolicies()
	td.expect("policies [c]")
	td.logged("documents=1 files=1 removed=x/a,x/b changed=x/c")
	td.troubled("")
}

// Whatever is wrong with the files, what was in force stays, is said once, and the same
// files put right are in force again.
func TestBrokenPolicies(t *testing.T) {
	for name, c := range map[string]struct {
		breakIt func(td *testDaemon)
		want    string
		told    []string // the agent, in vain
	}{
		"field": {func(td *testDaemon) {
			td.write("p/a.yaml", strings.ReplaceAll(policy("x/a", toHost), "egress", "egres"))
		}, "a.yaml:7:3: spec.egres", nil},
		"another":           {func(td *testDaemon) { td.write("p/b.yaml", "nonsense") }, "b.yaml:1:1: a policy must be a mapping", nil},
		"emptied":           {func(td *testDaemon) { td.write("p/a.yaml", "") }, "a.yaml: no policy in this file", nil},
		"removed":           {func(td *testDaemon) { td.remove("p/a.yaml") }, "p: no .yaml or .yml file in this directory", nil},
		"no directory":      {func(td *testDaemon) { td.remove("p/a.yaml"); td.remove("p") }, "p: no such file or directory", nil},
		"the agent refuses": {func(td *testDaemon) { td.write("p/b.yaml", policy("x/refused", toHost)) }, "refused", []string{"policies [a refused]"}},
	} {
		t.Run(name, func(t *testing.T) {
			td := startDaemon(t)
			td.log.Reset()
			c.breakIt(td)
			td.reloadPolicies()
			td.expect(c.told...)
			td.troubled(c.want)
			since := td.policyTrouble.since
			td.logged("nothing has changed: what was in force before stays")

			td.reloadPolicies() // the same again
			td.expect(c.told...)
			td.logged()
			if td.policyTrouble.since != since {
				t.Error("began anew")
			}

			os.Remove(filepath.Join(td.dir, "p/b.yaml"))
			td.write("p/a.yaml", policy("x/a", toWorld))
			td.reloadPolicies()
			td.expect("policies [a]")
			td.troubled("")
			td.logged("policies can be read again", "changed=x/a")
		})
	}
}

// A file that is put back as it was takes the trouble away and changes nothing.
func TestPutBack(t *testing.T) {
	td := startDaemon(t)
	td.write("p/a.yaml", "nonsense")
	td.reloadPolicies()
	td.write("p/a.yaml", "# with a comment\n"+policy("x/a", toHost))
	td.log.Reset()
	td.reloadPolicies()
	td.expect()
	td.troubled("")
	td.logged("policies can be read again")
}

func TestReload(t *testing.T) {
	td := startDaemon(t)
	td.log.Reset()
	td.write("agent.yaml", `policies: [q.yaml]
workloads: [{name: w, netns: w, labels: {app: a}}, {name: v, pid: 7, labels: {app: v}}]
addresses: [{name: db, cidrs: [10.0.0.0/8]}]
`)
	td.write("q.yaml", policy("x/q", toHost))
	td.reload()
	td.expect("addresses [default/db]", "policies [q]", "workloads [default/w=a default/v=v]")
	td.logged("configuration is in force", "added=x/q removed=x/a")
	// The new files are watched, the old ones not.
	td.write("q.yaml", policy("x/q", toWorld))
	select {
	case <-td.watch.Changes():
	case <-time.After(20 * time.Second):
		t.Error("the new file is not watched")
	}
}

// Labels and policies that change together leave no moment in which no policy selects
// the workload.
func TestRelabel(t *testing.T) {
	td := startDaemon(t)
	td.write("agent.yaml", "policies: [p]\nworkloads: [{name: w, netns: w, labels: {app: b}}]\n")
	td.write("p/a.yaml", policy("x/b", toHost))
	td.reload()
	td.expect("policies [a b]", "workloads [default/w=b]", "addresses []", "policies [b]", "workloads [default/w=b]")
	td.troubled("")
}

func TestBrokenReload(t *testing.T) {
	for name, c := range map[string]struct {
		config, policies string
		want             string
		told             []string
	}{
		"configuration": {"workload: []\n", policy("x/b", toHost), "agent.yaml:1:1: workload: unknown field", nil},
		"policies":      {"policies: [p]\n", "nonsense", "a.yaml:1:1: a policy must be", nil},
		"addresses": {someConfig + "addresses: [{name: refused, cidrs: [10.0.0.0/8]}]\n", policy("x/b", toHost), "set addresses: refused",
			[]string{"addresses [default/refused]", "policies [a]", "workloads [default/w=a]", "addresses []"}},
		"policies refused": {someConfig + "addresses: [{name: db, cidrs: [10.0.0.0/8]}]\n", policy("x/refused", toHost), "put policies in force: refused",
			[]string{"addresses [default/db]", "policies [refused]", "policies [a]", "workloads [default/w=a]", "addresses []"}},
		"relabelled and refused": {strings.ReplaceAll(someConfig, "app: a", "app: b"), policy("x/refused", toHost), "change one after the other",
			[]string{"policies [a refused]"}},
	} {
		t.Run(name, func(t *testing.T) {
			td := startDaemon(t)
			td.log.Reset()
			td.write("agent.yaml", c.config)
			td.write("p/a.yaml", c.policies)
			td.reload()
			td.expect(c.told...)
			td.troubled(c.want)
			td.logged("nothing has changed: what was in force before stays")
			if got := td.core.policies[0].Name; got != "a" {
				t.Errorf("policy %s is in force", got)
			}

			// A policy file put right does not make the configuration right.
			td.write("p/a.yaml", policy("x/a", toHost))
			td.reloadPolicies()
			td.expect()
			td.troubled(c.want)
			td.write("agent.yaml", someConfig)
			td.reload()
			td.troubled("")
		})
	}
}

func TestRestartNeeded(t *testing.T) {
	td := startDaemon(t)
	td.log.Reset()
	td.write("agent.yaml", someConfig+"socket: other.sock\ndiscover: {docker: {}}\n")
	td.reload()
	td.logged("a change of them needs a restart", "configuration is in force")
	if td.cfg.Socket != config.DefaultSocket || td.cfg.Docker != nil {
		t.Errorf("%+v", td.cfg)
	}
}

func record(reason string) *flow.Record { return &flow.Record{Type: "test", Reason: reason} }

// A log that was moved away is begun anew, in another form if that is asked for.
func TestLog(t *testing.T) {
	td := startDaemon(t)
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(td.dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	td.sink(record("nowhere"))
	td.write("agent.yaml", someConfig+"log: {file: records}\n")
	td.reload()
	td.sink(record("first"))
	if err := os.Rename(filepath.Join(td.dir, "records"), filepath.Join(td.dir, "records.1")); err != nil {
		t.Fatal(err)
	}
	td.sink(record("second"))
	td.reload()
	td.sink(record("third"))
	td.write("agent.yaml", someConfig+"log: {file: no/such/directory}\n")
	td.log.Reset()
	td.reload()
	td.logged("records go where they went before", "configuration is in force")
	td.sink(record("fourth"))
	td.write("agent.yaml", someConfig+"log: {file: records, format: json}\n")
	td.reload()
	td.sink(record("fifth"))
	td.out.close()
	td.sink(record("too late"))
	if got := read("records.1"); strings.Count(got, "\n") != 2 || !strings.Contains(got, "first") || !strings.Contains(got, "second") {
		t.Errorf("records.1: %s", got)
	}
	if got := read("records"); strings.Count(got, "\n") != 3 || !strings.Contains(got, "third") || !strings.Contains(got, "fourth") || !strings.Contains(got, `"reason":"fifth"`) {
		t.Errorf("records: %s", got)
	}
}

// Records may come while the log is exchanged, and none is lost.
func TestLogWhileRecordsCome(t *testing.T) {
	dir := t.TempDir()
	o := &output{stderr: os.Stderr, log: slog.Default()}
	path := filepath.Join(dir, "records")
	if err := o.open(config.Log{File: path, Format: records.Compact}); err != nil {
		t.Fatal(err)
	}
	const each = 2000
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range each {
				o.sink(record("one"))
			}
		})
	}
	for range 20 {
		if err := o.open(config.Log{File: path, Format: records.Compact}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	o.close()
	b, err := os.ReadFile(path)
	if n := bytes.Count(b, []byte("\n")); err != nil || n != 4*each {
		t.Errorf("%d records, %v", n, err)
	}
}

func TestContainers(t *testing.T) {
	td := startDaemon(t)
	td.write("agent.yaml", someConfig+"namespaces: {default: {team: red}}\n")
	td.reload()
	td.core.told()
	labels, err := identity.Workload("", "app=c")
	if err != nil {
		t.Fatal(err)
	}
	container := func(name, refused string) discover.Container {
		return discover.Container{ID: strings.Repeat("ab", 32), Refused: refused, Shares: []string{"side"},
			Workload: agent.Workload{Name: "default/" + name, Labels: labels, PID: 7}}
	}
	td.mu.Lock()
	td.containers = []discover.Container{container("c", ""), container("w", ""), container("r", "it is no good")}
	td.setWorkloads()
	td.mu.Unlock()
	td.expect("workloads [default/w=a default/c=c]")
	if got, _ := td.core.workloads[1].Labels.Get("k8s", config.NamespaceLabelsPrefix+"team"); got != "red" {
		t.Errorf("labels %s", td.core.workloads[1].Labels)
	}
	s := td.status(agent.Status{Endpoints: []agent.EndpointStatus{{Name: "default/c", Place: "pid 7"}, {Name: "default/w", Place: "netns w"}}})
	var got []string
	for _, e := range s.Endpoints {
		got = append(got, fmt.Sprintf("%s %s %s %s", e.Name, e.Place, e.State, e.Reason))
	}
	want := []string{
		"default/c docker abababababab, and in its namespace side  ",
		"default/r docker abababababab, and in its namespace side refused it is no good",
		"default/w netns w  ",
		"default/w docker abababababab, and in its namespace side refused the configuration has a workload of this name",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
