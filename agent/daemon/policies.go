package daemon

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/agent/explain"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/cnp"
)

// policySet is what the policy files held at a moment.
type policySet struct {
	policies []*l7rules.Policy
	warnings []cnp.Warning
	files    int
	texts    map[string][]string // of the documents, by name: what they say, without where
}

// loadPolicies reads files and directories. The error is that of every file that has
// one. A directory without a policy is an error, too: a volume that is not mounted
// must not open every door.
func loadPolicies(paths []string) (*policySet, error) {
	files := explain.Load(paths)
	list, warnings, err := explain.Join(files)
	if err != nil {
		return nil, err
	}
	if err := l7rules.Unenforced(list); err != nil {
		return nil, err
	}
	s := &policySet{policies: list, warnings: warnings, files: len(files), texts: map[string][]string{}}
	for _, p := range list {
		s.texts[p.FullName()] = append(s.texts[p.FullName()], describe(p))
	}
	for _, texts := range s.texts {
		slices.Sort(texts)
	}
	return s, nil
}

// difference is what one set has that another has not, by the names of documents.
type difference struct{ added, removed, changed []string }

func (d difference) empty() bool { return len(d.added)+len(d.removed)+len(d.changed) == 0 }

// args are for a log.
func (d difference) args() []any {
	var args []any
	for _, c := range []struct {
		key   string
		names []string
	}{{"added", d.added}, {"removed", d.removed}, {"changed", d.changed}} {
		if len(c.names) > 0 {
			args = append(args, c.key, strings.Join(c.names, ","))
		}
	}
	return args
}

func (s *policySet) since(old *policySet) difference {
	var d difference
	if old == nil {
		old = &policySet{}
	}
	for _, name := range slices.Sorted(maps.Keys(s.texts)) {
		switch texts, ok := old.texts[name]; {
		case !ok:
			d.added = append(d.added, name)
		case !slices.Equal(texts, s.texts[name]):
			d.changed = append(d.changed, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old.texts)) {
		if s.texts[name] == nil {
			d.removed = append(d.removed, name)
		}
	}
	return d
}

// describe writes all that a policy means, so that two with the same description mean
// the same wherever they stand.
func describe(p *l7rules.Policy) string {
	var b strings.Builder
	write(&b, reflect.ValueOf(p))
	return b.String()
}

var (
	originType   = reflect.TypeFor[l7rules.Origin]()
	stringerType = reflect.TypeFor[fmt.Stringer]()
)

// write is by reflection, so that no field is forgotten that policies get later.
func write(b *strings.Builder, v reflect.Value) {
	t := v.Type()
	switch {
	case t == originType:
		return
	case v.Kind() == reflect.Pointer && v.IsNil():
		b.WriteString("nil;")
		return
	case t.Implements(stringerType) && v.CanInterface():
		fmt.Fprintf(b, "%q;", v.Interface().(fmt.Stringer).String())
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		write(b, v.Elem())
	case reflect.Struct:
		b.WriteByte('{')
		for i := range v.NumField() {
			write(b, v.Field(i))
		}
		b.WriteByte('}')
	case reflect.Slice, reflect.Array:
		b.WriteByte('[')
		for i := range v.Len() {
			write(b, v.Index(i))
		}
		b.WriteByte(']')
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		b.WriteByte('[')
		for _, k := range keys {
			write(b, k)
			write(b, v.MapIndex(k))
		}
		b.WriteByte(']')
	default:
		fmt.Fprintf(b, "%#v;", v)
	}
}
