package cnp

import (
	"regexp"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/match"
)

// fqdn reads one element of toFQDNs.
func (r *reader) fqdn(n *node, path string) []match.Name {
	o, ok := r.Object(n, path, "matchName", "matchPattern")
	if !ok {
		return nil
	}
	names := r.matchNames(o, path)
	if len(names) > 1 {
		r.Errorf(o.Get("matchPattern").Pos, path, "one of matchName and matchPattern: write two elements")
	}
	return names
}

// dnsRule reads one element of dns. With both fields it covers what either matches.
func (r *reader) dnsRule(n *node, path string) []l7rules.NameRule {
	o, ok := r.Object(n, path, "matchName", "matchPattern")
	if !ok {
		return nil
	}
	var rules []l7rules.NameRule
	for _, name := range r.matchNames(o, path) {
		rules = append(rules, l7rules.NameRule{Origin: r.Origin(n.Pos), Name: name})
	}
	return rules
}

func (r *reader) matchNames(o *object, path string) (names []match.Name) {
	found := false
	for _, field := range []struct {
		name    string
		compile func(string) (match.Name, error)
	}{{"matchName", match.CompileName}, {"matchPattern", match.CompileNamePattern}} {
		n := o.Get(field.name)
		if n == nil {
			continue
		}
		found = true
		at := join(path, field.name)
		if s, ok := r.String(n, at); ok {
			name, err := field.compile(s)
			if err != nil {
				r.Errorf(n.Pos, at, "%v", err)
				continue
			}
			names = append(names, name)
		}
	}
	if !found && len(o.Fields) == len(o.Entries) {
		r.Errorf(o.Pos, path, "nothing in it, which would match nothing: write matchName, or matchPattern: \"*\" for every name")
	}
	return names
}

// serverName is what Cilium's schema lets a server name be: a wildcard stands for whole
// labels at its beginning.
var serverName = regexp.MustCompile(`^(\*?\*\.)?([-a-zA-Z0-9_]+\.?)+$`)

func (r *reader) serverNames(n *node, path string, pr *l7rules.PortRule) {
	items, present := r.List(n, path)
	switch {
	case !present:
		return
	case pr.Protocol != "":
		r.Errorf(n.Pos, path, "with %s rules it needs TLS to be terminated, which is not done: write two entries", pr.Protocol)
		return
	case n.Kind == kindList && len(items) == 0:
		r.Errorf(n.Pos, path, "empty: leave it out, or name at least one")
	}
	for i, item := range items {
		at := index(path, i)
		s, ok := r.String(item, at)
		if !ok {
			continue
		}
		name, err := match.CompileNamePattern(s)
		switch {
		case err != nil:
			r.Errorf(item.Pos, at, "%v", err)
		case !serverName.MatchString(s):
			r.Errorf(item.Pos, at, "%s: a wildcard is \"*.\" for one label or \"**.\" for any number, at the beginning", quote(s))
		default:
			pr.Protocol = l7rules.TLS
			pr.TLS = append(pr.TLS, l7rules.NameRule{Origin: r.Origin(item.Pos), Name: name})
		}
	}
}
