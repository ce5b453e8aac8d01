package config

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/weir-proxy/weir/l7rules/strictyaml"
)

var update = flag.Bool("update", false, "write what configurations mean into testdata")

// TestCases reads testdata/cases.txtar. Each file is a configuration and, after a line
// "...", what it means: every field, or every error.
func TestCases(t *testing.T) {
	const name = "testdata/cases.txtar"
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range archive.Files {
		t.Run(f.Name, func(t *testing.T) {
			text, want, _ := strings.Cut(string(f.Data), "...\n")
			got := describe(Parse("agent.yaml", "/etc/weir", []byte(text)))
			if *update {
				archive.Files[i].Data = []byte(text + "...\n" + got)
				return
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
	if *update {
		if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if len(archive.Files) < 40 {
		t.Errorf("only %d cases found in the file", len(archive.Files))
	}
}

func describe(c *Config, err error) string {
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	for _, p := range c.Policies {
		line("policies %s", p)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Namespaces)) {
		line("namespace %s: %v", name, c.Namespaces[name])
	}
	for _, w := range c.Workloads {
		unconfined := map[bool]string{true: " unconfined"}[w.Unconfined]
		line("workload %s netns=%q pid=%d cgroup=%q%s: %s", w.Name, w.Netns, w.PID, w.Cgroup, unconfined, w.Labels)
	}
	for _, a := range c.Addresses {
		line("address %s %v: %s", a.Name, a.CIDRs, a.Labels)
	}
	if c.Docker != nil {
		line("docker %s %v %q", c.Docker.Socket, c.Docker.Labels, c.Docker.Unconfined)
	}
	line("log %q %s", c.Log.File, c.Log.Format)
	line("socket %s", c.Socket)
	return b.String()
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(name, []byte("policies: [p.yaml]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, name := range []string{name, "agent.yaml"} {
		c, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{filepath.Join(dir, "p.yaml")}; !slices.Equal(c.Policies, want) {
			t.Errorf("%s: policies %q, want %q", name, c.Policies, want)
		}
	}
	if _, err := Load("missing.yaml"); !errors.Is(err, os.ErrNotExist) || strings.Count(err.Error(), "missing.yaml") != 1 {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(name, make([]byte, 2*MaxFileLen), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(name); err == nil || !strings.Contains(err.Error(), "at most 1048576") {
		t.Errorf("%v", err)
	}
}

// FuzzParse looks for a configuration that is taken although something in it has no
// meaning, and for errors without a place.
func FuzzParse(f *testing.F) {
	archive, err := txtar.ParseFile("testdata/cases.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range archive.Files {
		text, _, _ := strings.Cut(string(file.Data), "...\n")
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f.yaml", "/etc/weir", data)
		if again := describe(Parse("f.yaml", "/etc/weir", data)); again != describe(c, err) {
			t.Fatalf("read twice: %s then %s", describe(c, err), again)
		}
		if err != nil {
			var es strictyaml.Errors
			if !errors.As(err, &es) || len(es) == 0 || c != nil {
				t.Fatalf("error %v, configuration %v", err, c)
			}
			for _, e := range es {
				if strings.ContainsAny(e.Error(), "\r\n\x1b") {
					t.Fatalf("error over more than one line: %q", e.Error())
				}
				if lines := strings.Count(string(data), "\n") + 1; e.Origin.Line < 0 || e.Origin.Line > lines || e.Text == "" {
					t.Fatalf("place %v of %d lines", e.Origin, lines)
				}
			}
			return
		}
		names := map[string]bool{}
		for _, w := range c.Workloads {
			places := 0
			for _, set := range []bool{w.Netns != "", w.PID != 0, w.Cgroup != ""} {
				if set {
					places++
				}
			}
			if places != 1 || names[w.Name] || w.Labels.Namespace() == "" || !strings.HasPrefix(w.Name, w.Labels.Namespace()+"/") ||
				w.Netns != "" && !path.IsAbs(w.Netns) || w.Cgroup != "" && (w.Cgroup == "/" || !path.IsAbs(w.Cgroup) || path.Clean(w.Cgroup) != w.Cgroup) {
				t.Fatalf("workload %+v", w)
			}
			names[w.Name] = true
		}
		for _, a := range c.Addresses {
			if len(a.CIDRs) == 0 || names[a.Name] {
				t.Fatalf("address %+v", a)
			}
			names[a.Name] = true
		}
		for _, p := range c.Policies {
			if !filepath.IsAbs(p) {
				t.Fatalf("policy %s", p)
			}
		}
	})
}
