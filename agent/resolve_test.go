//go:build linux

package agent

import (
	"slices"
	"strings"
	"testing"
)

// A policy that changes is put in force for those it selects, and for nobody else; the rest
// of its file, read again, is what it was.
func TestReloadTouchesWhatChanged(t *testing.T) {
	r := newRig(t)
	others := strings.NewReplacer("name: server", "name: others", "app: server", "app: frontend", "ingress", "egress", "fromEndpoints", "toEndpoints").Replace(frontendToServer)
	docs := frontendToServer + "---" + others
	r.setPolicies(docs)
	r.setWorkloads(
		Workload{Name: "default/server", Labels: labels(t, "app=server"), Netns: namespace(t)},
		Workload{Name: "default/frontend", Labels: labels(t, "app=frontend"), Netns: namespace(t)},
		Workload{Name: "default/neighbour", Labels: labels(t, "app=neighbour"), Netns: namespace(t)},
	)
	written := func() map[string]*verdicts {
		r.a.mu.Lock()
		defer r.a.mu.Unlock()
		all := map[string]*verdicts{}
		for name, e := range r.a.active {
			if e.written == nil || e.written != e.verdicts.Load() {
				t.Fatalf("%s: the kernel was told %p, the proxy judges by %p", name, e.written, e.verdicts.Load())
			}
			all[name] = e.written
		}
		return all
	}
	for _, c := range []struct {
		what, docs string
		changed    string
	}{
		{"nothing", docs, ""},
		{"a comment", "# moved\n\n" + docs, ""},
		{"the order", others + "---" + frontendToServer, ""},
		{"one rule of the server's", strings.Replace(docs, "method: GET", "method: POST", 1), "default/server"},
		{"the same again", strings.Replace(docs, "method: GET", "method: POST", 1), ""},
		{"back, and a policy for the neighbour", docs + "---" + strings.ReplaceAll(frontendToServer, "server", "neighbour"), "default/neighbour default/server"},
		{"a prefix, which is a new peer of everybody's", docs + "---" + strings.ReplaceAll(strings.ReplaceAll(frontendToServer, "server", "neighbour"),
			"fromEndpoints: [{matchLabels: {app: frontend}}]", "fromCIDR: [192.0.2.0/24]"), "default/frontend default/neighbour default/server"},
	} {
		before := written()
		r.setPolicies(c.docs)
		var changed []string
		for name, v := range written() {
			if v != before[name] {
				changed = append(changed, name)
			}
		}
		slices.Sort(changed)
		if got := strings.Join(changed, " "); got != c.changed {
			t.Errorf("%s: put in force anew for %q, want %q", c.what, got, c.changed)
		}
	}
}
