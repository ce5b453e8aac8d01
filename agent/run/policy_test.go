package run

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/l7rules/flow"
)

func policyFile(t *testing.T, spec string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	text := "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\nspec:\n  " + strings.ReplaceAll(spec, "\n", "\n  ") + "\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadSubject(t *testing.T) {
	all := policyFile(t, "endpointSelector: {}\negress: [{toEntities: [host]}]")
	job := policyFile(t, "endpointSelector: {matchLabels: {job: release, tier: back}}\negress: [{toEntities: [host]}]")
	other := policyFile(t, "endpointSelector: {matchLabels: {job: release, tier: back, zone: a}}\negress: [{toEntities: [host]}]")
	not := policyFile(t, "endpointSelector: {matchExpressions: [{key: job, operator: DoesNotExist}]}\negress: [{toEntities: [host]}]")
	for _, c := range []struct {
		name     string
		o        Options
		enforced bool
		errs     []string // in the error
		notes    string   // in the notes
	}{
		{"selected", Options{Policies: []string{all}}, true, nil, ""},
		{"by label", Options{Policies: []string{job}, Labels: []string{"job=release", "tier=back"}}, true, nil, ""},
		{"audit alone", Options{Audit: true}, false, nil, "no policy"},
		{"audit with policy", Options{Audit: true, Policies: []string{all}}, true, nil, ""},
		{"neither", Options{}, false, []string{"--policy", "--audit"}, ""},
		{"a label is missing", Options{Policies: []string{other, job}, Labels: []string{"tier=back"}}, false,
			[]string{"k8s:tier=back", "k8s:io.kubernetes.pod.namespace=default", "nearest: default/p at " + job, "add: --label job=release"}, ""},
		{"a label is in the way", Options{Policies: []string{not}, Labels: []string{"job=x"}}, false,
			[]string{"a label of the command contradicts: !job"}, ""},
		{"another namespace", Options{Policies: []string{all}, Labels: []string{"io.kubernetes.pod.namespace=shop"}}, false,
			[]string{"--label io.kubernetes.pod.namespace=default"}, ""},
		{"bad label", Options{Audit: true, Labels: []string{"reserved:host"}}, false, []string{"reserved"}, ""},
		{"a rule that nothing enforces", Options{Policies: []string{policyFile(t, "endpointSelector: {}\negress: [{toFQDNs: [{matchName: a.test}]}]")}}, false,
			[]string{"policy.yaml:6:12: default/p: toFQDNs is not enforced yet"}, ""},
		{"no file", Options{Policies: []string{"no-such-file.yaml"}}, false, []string{"no-such-file.yaml"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Command = []string{"/usr/bin/curl"}
			sub, notes, err := loadSubject(c.o)
			for _, want := range c.errs {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %q in it", err, want)
				}
			}
			if c.errs != nil {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(notes, "\n"); c.notes == "" && got != "" || !strings.Contains(got, c.notes) {
				t.Errorf("notes %q, want %q", got, c.notes)
			}
			if sub.Name != "default/curl" || sub.Policy.Enforced(flow.Egress) != c.enforced {
				t.Errorf("%s, enforced %v, want %v", sub.Name, sub.Policy.Enforced(flow.Egress), c.enforced)
			}
		})
	}
}
