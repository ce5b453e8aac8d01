package cnp

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// FuzzParse looks for files that are read without an error although they cannot be, and
// for errors without a place.
func FuzzParse(f *testing.F) {
	archive, err := txtar.ParseFile("testdata/cases.txtar")
	if err != nil {
		f.Fatal(err)
	}
	const head = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\nspec:\n  "
	for _, file := range archive.Files {
		documents, _, _ := strings.Cut(string(file.Data), "...\n")
		documents = macros.Replace(documents)
		if !strings.HasPrefix(documents, "apiVersion") && !strings.HasPrefix(documents, "---") {
			documents = head + strings.ReplaceAll("endpointSelector: {}\n"+documents, "\n", "\n  ")
		}
		f.Add([]byte(documents))
	}
	example, err := os.ReadFile("../../examples/http-allow-get/policy.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	labels, err := identity.Workload("", "app=s")
	if err != nil {
		f.Fatal(err)
	}
	peers := []l7rules.Peer{{}, {ID: identity.Host}, {ID: identity.World}, {ID: identity.FirstEndpoint, Labels: labels}}

	f.Fuzz(func(t *testing.T, data []byte) {
		policies, warnings, err := Parse("f.yaml", data)
		again, _, err2 := Parse("f.yaml", data)
		if (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() || len(policies) != len(again) {
			t.Fatalf("read twice: %v, then %v", err, err2)
		}
		lines := strings.Count(string(data), "\n") + 1
		check := func(o l7rules.Origin, text string) {
			if o.File != "f.yaml" || o.Line < 0 || o.Line > lines || o.Column < 0 || text == "" {
				t.Fatalf("place %v of %d lines: %q", o, lines, text)
			}
		}
		for _, w := range warnings {
			check(w.Origin, w.Text)
		}
		if err != nil {
			var es Errors
			if !errors.As(err, &es) || len(es) == 0 || policies != nil {
				t.Fatalf("error %v, policies %v", err, policies)
			}
			for _, e := range es {
				check(e.Origin, e.Text)
				if strings.ContainsAny(e.Error(), "\r\n\x1b") {
					t.Fatalf("error over more than one line: %q", e.Error())
				}
			}
			return
		}
		if len(policies) == 0 {
			t.Fatal("neither a policy nor an error")
		}
		for _, p := range policies {
			if p.Name == "" || len(p.Rules) == 0 && p.Closes == [2]bool{} || p.Origin.Line == 0 {
				t.Fatalf("incomplete policy %+v", p)
			}
		}
		ep, err := l7rules.Compile(policies, labels)
		if err != nil {
			return
		}
		for _, dir := range []flow.Direction{flow.Egress, flow.Ingress} {
			for _, peer := range peers {
				table := ep.Table(dir, peer)
				for _, e := range table {
					if e.Audit && e.Policy == "" && e.Reason == "" {
						// Why is for Lookup to say.
						e.Reason = ep.Lookup(dir, peer, e.Proto, e.First).Reason
					}
					if got := ep.Lookup(dir, peer, e.Proto, e.First); !cmp.Equal(got, e, cmp.Comparer(func(a, b *l7rules.Ruleset) bool { return a == b })) {
						t.Fatalf("table says %+v, lookup %+v", e, got)
					}
				}
			}
		}
	})
}
