package learn

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/l7rules/match"
)

// rule is one HTTP rule to be: whole expressions, host "" for any.
type rule struct{ host, method, path string }

// shape is a path in which segments that name one of many things are left open.
type shape struct{ host, method, path string }

// One of many things: a number, a UUID, a digest.
var open = []struct{ is, as *regexp.Regexp }{
	{regexp.MustCompile(`^[0-9]+$`), regexp.MustCompile(`[0-9]+`)},
	{regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`), regexp.MustCompile(`[0-9a-f-]{36}`)},
	{regexp.MustCompile(`^[0-9a-f]{12,}$`), regexp.MustCompile(`[0-9a-f]+`)},
}

// siblings is how many names in one directory are written out; more are any name.
const siblings = 8

const anyName = `[^/?]+`

// rules are what covers a destination's requests. With withHost they name the Host too.
func rules(requests map[request]int, withHost bool) []rule {
	// Paths of one shape are left open only if there are several.
	byShape := map[shape]map[string]bool{}
	queries := map[shape]map[string]bool{}
	each := func(f func(r request, s shape)) {
		for r := range requests {
			s := shape{r.host, r.method, openPath(r.path)}
			if !withHost {
				s.host = ""
			}
			f(r, s)
		}
	}
	each(func(r request, s shape) { add(byShape, s, r.path) })
	exact := func(r request, s shape) shape {
		if len(byShape[s]) == 1 {
			s.path = match.Quote(r.path)
		}
		return s
	}
	// Names of one directory likewise.
	inDir := map[shape]map[string]bool{}
	each(func(r request, s shape) {
		s = exact(r, s)
		dir, name := cut(s.path)
		add(inDir, shape{s.host, s.method, dir}, name)
	})
	final := func(r request, s shape) shape {
		s = exact(r, s)
		dir, name := cut(s.path)
		if name == "" {
			return s // the directory itself
		}
		if names := inDir[shape{s.host, s.method, dir}]; len(names) > siblings || names[many] {
			s.path = dir + anyName
		}
		return s
	}
	each(func(r request, s shape) { add(queries, final(r, s), r.query) })

	methods := map[rule]map[string]bool{} // by rule without method
	for s, qs := range queries {
		add(methods, rule{host: s.host, path: s.path + query(qs)}, s.method)
	}
	var list []rule
	for r, ms := range methods {
		r.method = alternatives(ms)
		if r.host != "" {
			r.host = match.Quote(r.host)
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b rule) int {
		return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.path, b.path), cmp.Compare(a.method, b.method))
	})
	return list
}

func add[K comparable](m map[K]map[string]bool, k K, v string) {
	if m[k] == nil {
		m[k] = map[string]bool{}
	}
	m[k][v] = true
}

// openPath is a path as an expression with its numbers and the like left open.
func openPath(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = openSegment(s)
	}
	return strings.Join(segments, "/")
}

func openSegment(s string) string {
	for _, o := range open {
		if o.is.MatchString(s) {
			return o.as.String()
		}
	}
	if s == many {
		return many
	}
	return match.Quote(s)
}

// cut divides the expression of a path behind the last slash; no segment left open so far
// has one in it.
func cut(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/') + 1
	return path[:i], path[i:]
}

// query is the expression of what follows the path: the one query that was seen, or any.
func query(seen map[string]bool) string {
	switch {
	case len(seen) == 1 && seen[""]:
		return ""
	case len(seen) == 1 && !seen[many]:
		for q := range seen {
			return `\?` + match.Quote(q)
		}
	case seen[""] || seen[many]:
		return `(\?.*)?`
	}
	return `\?.*`
}

func alternatives(set map[string]bool) string {
	list := sorted(set, strings.Compare)
	for i, s := range list {
		list[i] = match.Quote(s)
	}
	return strings.Join(list, "|")
}
