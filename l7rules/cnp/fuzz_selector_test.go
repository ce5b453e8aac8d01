package cnp

import (
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// kubeSelector is a selector as any reader of YAML sees it.
type kubeSelector struct {
	MatchLabels      map[string]string `yaml:"matchLabels"`
	MatchExpressions []struct {
		Key      string   `yaml:"key"`
		Operator string   `yaml:"operator"`
		Values   []string `yaml:"values"`
	} `yaml:"matchExpressions"`
}

// matches is what Kubernetes says a selector means, key by key. Labels are source:key.
func (s *kubeSelector) matches(labels map[string]string) bool {
	values := func(key string) (found []string) {
		for k, v := range labels {
			source, name, _ := strings.Cut(k, ":")
			if key == k || key == name || key == "any:"+name && source != "" {
				found = append(found, v)
			}
		}
		return found
	}
	for k, v := range s.MatchLabels {
		if !slices.Contains(values(k), v) {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		found := values(e.Key)
		in := slices.ContainsFunc(found, func(v string) bool { return slices.Contains(e.Values, v) })
		holds := map[string]bool{"In": in, "NotIn": !in, "Exists": len(found) > 0, "DoesNotExist": len(found) == 0}
		if !holds[e.Operator] {
			return false
		}
	}
	return true
}

// FuzzSelector compares what an endpointSelector selects with what the YAML library and
// the definition of Kubernetes make of the same bytes.
func FuzzSelector(f *testing.F) {
	for _, s := range []string{
		"{}", "{matchLabels: {app: a}}", "{matchLabels: {\"k8s:app\": a, tier: x}}", "{matchLabels: {\"container:image\": nginx}}",
		"{matchExpressions: [{key: app, operator: In, values: [a, b]}]}", "{matchExpressions: [{key: app, operator: NotIn, values: [a]}, {key: tier, operator: Exists}]}",
		"{matchExpressions: [{key: \"any:app\", operator: DoesNotExist}]}", "{matchLabels: {\"reserved:host\": \"\"}}", "{matchLabels: {app: \"\"}}",
		"{matchExpressions: [{key: image, operator: In, values: [\"nginx\"]}]}", "{matchLabels: {a.b/c: d-e_f}}",
	} {
		f.Add(s)
	}
	var sets []map[string]string
	var labels []identity.Labels
	for _, texts := range [][]string{{}, {"k8s:app=a"}, {"k8s:app=b", "k8s:tier=x"}, {"k8s:app=", "container:image=nginx"}, {"container:app=a", "k8s:app=b"}} {
		ls, err := identity.ParseLabels(texts...)
		if err != nil {
			f.Fatal(err)
		}
		set := map[string]string{}
		for _, l := range ls.All() {
			set[l.Source+":"+l.Key] = l.Value
		}
		sets, labels = append(sets, set), append(labels, ls)
	}
	f.Fuzz(func(t *testing.T, text string) {
		// A clusterwide policy adds nothing to its endpointSelector.
		doc := "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p}\nspec:\n  egress: [{}]\n  endpointSelector: " + text + "\n"
		policies, _, err := Parse("f.yaml", []byte(doc))
		if err != nil || len(policies) != 1 {
			return
		}
		var other struct {
			Spec struct{ EndpointSelector kubeSelector }
		}
		dec := yaml.NewDecoder(strings.NewReader(strings.ReplaceAll(doc, "endpointSelector", "endpointselector")))
		if err := dec.Decode(&other); err != nil {
			t.Fatalf("read by us, and not by the library: %v", err)
		}
		s := policies[0].Subject
		for i, set := range sets {
			// io.kubernetes.pod.namespace and its labels are read in a way of their own.
			if strings.Contains(s.String(), "io.") {
				return
			}
			if got, want := s.Matches(labels[i]), other.Spec.EndpointSelector.matches(set); got != want {
				t.Fatalf("%s of %s: %v, Kubernetes says %v", s, labels[i], got, want)
			}
			ep, err := l7rules.Compile(policies, labels[i])
			if err != nil || ep.Enforced(flow.Egress) != s.Matches(labels[i]) {
				t.Fatalf("%s of %s: selected %v, %v", s, labels[i], ep.Selected(), err)
			}
		}
	})
}
