package cnp

import (
	"strings"

	"github.com/weir-proxy/weir/l7rules"
)

// header reads "Name" or "Name: value". Cilium splits at the first blank and takes a colon
// off the name; what it would read as a name that nobody can send is an error here.
func (r *reader) header(n *node, path string) (l7rules.HeaderMatch, bool) {
	s, ok := r.String(n, path)
	if !ok {
		return l7rules.HeaderMatch{}, false
	}
	name, value, exact := strings.Cut(s, " ")
	if exact {
		name = strings.TrimSuffix(name, ":")
	}
	switch before, after, colon := strings.Cut(name, ":"); {
	case colon && isToken(before) && after != "" && !exact:
		r.Errorf(n.Pos, path, "%s: a blank is missing: write \"%s: %s\"", quote(s), before, after)
	case colon && isToken(before) && !exact:
		r.Errorf(n.Pos, path, "%s: write \"%s\" for any value", quote(s), before)
	case !r.headerName(n, path, name):
	case exact && value == "":
		r.Errorf(n.Pos, path, "%s: write \"%s\" for any value", quote(s), name)
	case exact && !r.headerValue(n, path, value):
	default:
		return l7rules.HeaderMatch{Name: name, Value: value, Exact: exact}, true
	}
	return l7rules.HeaderMatch{}, false
}

// headerName reports whether a rule can ask for a header field of this name.
func (r *reader) headerName(n *node, path, name string) bool {
	switch {
	case strings.HasPrefix(name, ":"):
		r.Errorf(n.Pos, path, "%s is a pseudo-header: use method, path and host", quote(name))
	case !isToken(name):
		r.Errorf(n.Pos, path, "%s is no header name: write \"Name\" or \"Name: value\"", quote(name))
	case strings.EqualFold(name, "host"):
		r.Errorf(n.Pos, path, "use host for the Host header")
	default:
		return true
	}
	return false
}

// headerValue reports whether a header field can have this value.
func (r *reader) headerValue(n *node, path, value string) bool {
	switch {
	case strings.TrimSpace(value) != value:
		r.Errorf(n.Pos, path, "%s: blanks around the value, which no value has", quote(value))
	case strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f }):
		r.Errorf(n.Pos, path, "%s holds a control character", quote(value))
	default:
		return true
	}
	return false
}

// isToken reports whether s can be the name of a header field (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// headerMatch reads one element of headerMatches. The mismatch that only logs makes it no
// condition; those that change the request are refused.
func (r *reader) headerMatch(n *node, path string, h *l7rules.HTTPRule) {
	o, ok := r.Object(n, path, "name", "value", "mismatch", "secret")
	if !ok {
		return
	}
	if s := o.Get("secret"); s != nil {
		r.Errorf(s.Pos, join(path, "secret"), "there are no Kubernetes secrets: write value")
	}
	log := false
	if m := o.Get("mismatch"); m != nil {
		at := join(path, "mismatch")
		switch s, ok := r.String(m, at); {
		case !ok:
		case s == "LOG":
			log = true
		case s == "ADD" || s == "DELETE" || s == "REPLACE":
			r.Errorf(m.Pos, at, "%s: what was judged is what is forwarded, so a request is not changed; leave it out, or write LOG", s)
		default:
			r.Errorf(m.Pos, at, "unknown action %s: LOG, or leave it out, which refuses", quote(s))
		}
	}
	f := o.Get("name")
	if f == nil {
		r.Errorf(o.Pos, join(path, "name"), "missing")
		return
	}
	name, ok := r.String(f, join(path, "name"))
	if !ok || !r.headerName(f, join(path, "name"), name) {
		return
	}
	m := l7rules.HeaderMatch{Name: name}
	if v := o.Get("value"); v != nil {
		value, ok := r.String(v, join(path, "value"))
		if !ok || !r.headerValue(v, join(path, "value"), value) {
			return
		}
		m.Value, m.Exact = value, value != ""
	}
	if log {
		h.Log = append(h.Log, m)
	} else {
		h.Headers = append(h.Headers, m)
	}
}
