package prove

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/identity"
)

// Bounds of the kinds of endpoints.
const (
	maxKinds    = 1 << 12
	maxKindWork = 100_000_000 // words of bits
)

// namespaceLabels is what the keys of a namespace's labels begin with on everything in it.
const namespaceLabels = "io.cilium.k8s.namespace.labels."

// kind stands for all label sets that exactly these selectors match.
type kind struct {
	selectors set
	labels    identity.Labels
}

// kinds finds every set of selectors that match one endpoint at once, with the labels of
// one each. An endpoint has at most one label of a key, and always a namespace.
//
// It goes from key to key. What counts of the labels chosen so far is which selectors they
// have not refuted: of those with the same, one is enough.
//
// Namespaces whose labels are known have these and no others.
func kinds(selectors []identity.Selector, namespaces map[string][]identity.Label) ([]kind, error) {
	type partial struct {
		alive     set
		labels    []identity.Label
		namespace string // where its labels are known
	}
	list := []partial{{alive: all(len(selectors))}}
	work := 0
	for _, key := range keysOf(selectors) {
		options := optionsOf(selectors, key, namespaces)
		general := len(options)
		ofNamespace := map[string]int{}
		if strings.HasPrefix(key, namespaceLabels) {
			for _, name := range slices.Sorted(maps.Keys(namespaces)) {
				ofNamespace[name] = len(options)
				i := slices.IndexFunc(namespaces[name], func(l identity.Label) bool { return l.Key == key })
				if i < 0 {
					options = append(options, nil)
				} else {
					options = append(options, namespaces[name][i:i+1])
				}
			}
		}
		parts := map[int]identity.Selector{} // of those that name the key
		for i, s := range selectors {
			reqs := slices.DeleteFunc(s.Requirements(), func(r identity.Requirement) bool { return r.Key != key })
			if len(reqs) == 0 {
				continue
			}
			part, err := identity.NewSelector(reqs...)
			if err != nil {
				return nil, fmt.Errorf("take selector %s apart: %w", s, err)
			}
			parts[i] = part
		}
		refuted := make([]set, len(options))
		for o, labels := range options {
			ls, err := identity.NewLabels(labels...)
			if err != nil {
				return nil, fmt.Errorf("make labels of %s: %w", key, err)
			}
			refuted[o] = newSet(len(selectors))
			for i, part := range parts {
				if !part.Matches(ls) {
					refuted[o].add(i)
				}
			}
		}
		if work += (len(list) + len(parts)) * len(options) * (len(selectors)/64 + 1); work > maxKindWork {
			return nil, &Unknown{Reason: fmt.Sprintf("the selectors are too many to tell their endpoints apart; the label %s has the most values. Known workloads alone may be fewer", busiest(selectors))}
		}
		seen := map[string]bool{}
		var next []partial
		for _, p := range list {
			for o, labels := range options {
				if own, ok := ofNamespace[p.namespace]; ok && o != own || !ok && o >= general {
					continue
				}
				alive := p.alive.clone()
				for w := range alive {
					alive[w] &^= refuted[o][w]
				}
				namespace := p.namespace
				if key == identity.NamespaceKey {
					if _, ok := namespaces[labels[0].Value]; ok {
						namespace = labels[0].Value
					}
				}
				k := namespace + "\x00" + alive.key()
				if seen[k] {
					continue
				}
				seen[k] = true
				next = append(next, partial{alive, append(slices.Clip(p.labels), labels...), namespace})
				if len(next) > maxKinds {
					return nil, &Unknown{Reason: fmt.Sprintf("the selectors tell more than %d kinds of endpoints apart; the label %s has the most values. Known workloads alone may be fewer", maxKinds, busiest(selectors))}
				}
			}
		}
		list = next
	}
	all := make([]kind, 0, len(list))
	seen := map[string]bool{}
	for _, p := range list {
		if seen[p.alive.key()] {
			continue
		}
		seen[p.alive.key()] = true
		ls, err := identity.NewLabels(p.labels...)
		if err != nil {
			return nil, fmt.Errorf("make labels: %w", err)
		}
		all = append(all, kind{p.alive, ls})
	}
	return all, nil
}

// keysOf are the keys that selectors name, the namespace first: every endpoint has one.
func keysOf(selectors []identity.Selector) []string {
	var keys []string
	for _, s := range selectors {
		for _, r := range s.Requirements() {
			if r.Key != identity.NamespaceKey {
				keys = append(keys, r.Key)
			}
		}
	}
	slices.Sort(keys)
	return append([]string{identity.NamespaceKey}, slices.Compact(keys)...)
}

// optionsOf are the labels of one key that selectors can tell apart: none, each value of
// each source that some selector names, and another value. The plainest come first.
func optionsOf(selectors []identity.Selector, key string, namespaces map[string][]identity.Label) [][]identity.Label {
	var values, sources []string
	assignable := false
	for _, s := range selectors {
		for _, r := range s.Requirements() {
			if r.Key != key || r.Source == identity.SourceReserved {
				continue // no endpoint has a reserved label
			}
			assignable = true
			values = append(values, r.Values...)
			if r.Source != identity.SourceAny {
				sources = append(sources, r.Source)
			}
		}
	}
	if key == identity.NamespaceKey {
		// Every endpoint has exactly this one.
		assignable, sources = true, []string{identity.SourceK8s}
		values = append(append(values, identity.DefaultNamespace), slices.Collect(maps.Keys(namespaces))...)
	} else if len(sources) == 0 {
		sources = append(sources, identity.SourceK8s)
	} else {
		// One that no selector names, and only those that take any can see.
		other := identity.SourceContainer
		if slices.Contains(sources, other) {
			other = another(sources)
		}
		sources = append(sources, identity.SourceK8s, other)
	}
	slices.Sort(values)
	values = slices.Compact(values)
	if i := slices.Index(values, identity.DefaultNamespace); i > 0 && key == identity.NamespaceKey {
		values = append([]string{identity.DefaultNamespace}, slices.Delete(values, i, i+1)...)
	}
	values = append(values, another(values))
	slices.Sort(sources)
	sources = slices.Compact(sources)
	if i := slices.Index(sources, identity.SourceK8s); i > 0 {
		sources = append([]string{identity.SourceK8s}, slices.Delete(sources, i, i+1)...)
	}

	var options [][]identity.Label
	if key != identity.NamespaceKey {
		options = append(options, nil)
	}
	if !assignable {
		return options
	}
	for _, source := range sources {
		for _, v := range values {
			options = append(options, []identity.Label{{Source: source, Key: key, Value: v}})
		}
	}
	return options
}

// busiest is the key with the most values in selectors.
func busiest(selectors []identity.Selector) string {
	worst, most := "", 0
	for _, key := range keysOf(selectors) {
		if n := len(optionsOf(selectors, key, nil)); n > most {
			worst, most = key, n
		}
	}
	return worst
}

// signature is the set of selectors that match labels.
func signature(selectors []identity.Selector, ls identity.Labels) set {
	s := newSet(len(selectors))
	for i := range selectors {
		if selectors[i].Matches(ls) {
			s.add(i)
		}
	}
	return s
}
