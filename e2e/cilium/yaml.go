package cilium

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// document is a policy as a tree of map[string]any, []any, string, int, bool and nil,
// so that it can be mutated and shrunk.
type document = map[string]any

// text is a document as both engines read it.
func text(doc document) string {
	data, err := yaml.Marshal(doc)
	if err != nil {
		panic(err) // made of nothing that cannot be written
	}
	return string(data)
}

const separator = "---\n"

// file is several documents in one.
func file(docs []document) string {
	texts := make([]string, len(docs))
	for i, d := range docs {
		texts[i] = text(d)
	}
	return strings.Join(texts, separator)
}

func clone(v any) any {
	switch v := v.(type) {
	case document:
		m := document{}
		for k, e := range v {
			m[k] = clone(e)
		}
		return m
	case []any:
		s := make([]any, len(v))
		for i, e := range v {
			s[i] = clone(e)
		}
		return s
	}
	return v
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}

// place is a value in a document.
type place struct {
	key    string // "" for an element of a list
	value  any
	set    func(any)
	remove func()
}

// places lists every value in a document, the outermost first. Once one of them was
// changed the others are stale.
func places(doc document) []place {
	var all []place
	var walk func(v any, set func(any))
	walk = func(v any, set func(any)) {
		switch v := v.(type) {
		case document:
			for _, k := range sortedKeys(v) {
				replace := func(n any) { v[k] = n }
				all = append(all, place{k, v[k], replace, func() { delete(v, k) }})
				walk(v[k], replace)
			}
		case []any:
			for i := range v {
				replace := func(n any) { v[i] = n }
				all = append(all, place{"", v[i], replace, func() { set(slices.Delete(slices.Clone(v), i, i+1)) }})
				walk(v[i], replace)
			}
		}
	}
	walk(doc, nil)
	return all
}
