package cnp

import (
	"errors"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/match"
)

// maxCost bounds the regular expressions of one file, in instructions. Each takes about
// 40 bytes.
const maxCost = 1 << 19

// rules reads the request rules beside a list of ports.
func (r *reader) rules(n *node, path string, pr *l7rules.PortRule) {
	o, ok := r.Object(n, path, "http")
	if !ok {
		return
	}
	other := 0
	for _, e := range o.Entries {
		if e.Key.Text != "http" && unsupported[e.Key.Text] != "" {
			other++
		}
	}
	if other > 0 && o.Get("http") != nil {
		r.Errorf(o.Get("http").Pos, join(path, "http"), "one application protocol per entry: write two entries")
	}
	items, _ := r.List(o.Get("http"), join(path, "http"))
	for i, item := range items {
		pr.Protocol = l7rules.HTTP
		pr.HTTP = append(pr.HTTP, r.httpRule(item, index(join(path, "http"), i)))
	}
}

func (r *reader) httpRule(n *node, path string) l7rules.HTTPRule {
	h := l7rules.HTTPRule{Origin: r.Origin(n.Pos)}
	o, ok := r.Object(n, path, "method", "path", "host", "headers")
	if !ok {
		return h
	}
	h.Method = r.pattern(o, "method", path)
	h.Path = r.pattern(o, "path", path)
	h.Host = r.pattern(o, "host", path)
	r.warnHTTP(o, path, &h)
	headers, _ := r.List(o.Get("headers"), join(path, "headers"))
	for i, f := range headers {
		if m, ok := r.header(f, index(join(path, "headers"), i)); ok {
			h.Headers = append(h.Headers, m)
		}
	}
	return h
}

func (r *reader) pattern(o *object, name, path string) *match.Pattern {
	n := o.Get(name)
	if n == nil {
		return nil
	}
	at := join(path, name)
	s, ok := r.String(n, at)
	if !ok {
		return nil
	}
	if s == "" {
		r.Warnf(n.Pos, at, "empty: it matches everything, as if it were not there")
		return nil
	}
	if r.cost > maxCost {
		return nil // said once
	}
	p, err := match.Compile(s)
	if err != nil {
		hint := ""
		switch {
		case strings.HasPrefix(s, "*"):
			hint = "; write \".*" + s[1:] + "\""
		case errors.Is(err, match.ErrTooLarge):
			hint = "; write several rules"
		}
		r.Errorf(n.Pos, at, "%s is no regular expression: %v%s", quote(s), err, hint)
		return nil
	}
	if r.cost += p.Cost(); r.cost > maxCost {
		r.Errorf(n.Pos, at, "the regular expressions of this file are too large together: split the file")
		return nil
	}
	return p
}

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
	case strings.HasPrefix(name, ":"):
		r.Errorf(n.Pos, path, "%s is a pseudo-header: use method, path and host", quote(name))
	case colon && isToken(before) && after != "" && !exact:
		r.Errorf(n.Pos, path, "%s: a blank is missing: write \"%s: %s\"", quote(s), before, after)
	case colon && isToken(before) && !exact:
		r.Errorf(n.Pos, path, "%s: write \"%s\" for any value", quote(s), before)
	case !isToken(name):
		r.Errorf(n.Pos, path, "%s is no header name: write \"Name\" or \"Name: value\"", quote(name))
	case strings.EqualFold(name, "host"):
		r.Errorf(n.Pos, path, "use host for the Host header")
	case exact && strings.TrimSpace(value) != value:
		r.Errorf(n.Pos, path, "%s: blanks around the value, which no value has", quote(s))
	case exact && value == "":
		r.Errorf(n.Pos, path, "%s: write \"%s\" for any value", quote(s), name)
	case exact && strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f }):
		r.Errorf(n.Pos, path, "%s holds a control character", quote(s))
	default:
		return l7rules.HeaderMatch{Name: name, Value: value, Exact: exact}, true
	}
	return l7rules.HeaderMatch{}, false
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

// warnHTTP says what a rule probably does not mean.
func (r *reader) warnHTTP(o *object, path string, h *l7rules.HTTPRule) {
	if h.Method != nil {
		if all, ok := h.Method.Literals(); ok && len(all) == 1 && all[0] != strings.ToUpper(all[0]) {
			r.Warnf(o.Get("method").Pos, join(path, "method"), "methods are case-sensitive: %s is another method than %s", quote(all[0]), strings.ToUpper(all[0]))
		}
	}
	if h.Path != nil {
		at, s := o.Get("path"), h.Path.String()
		prefix := h.Path.Prefix()
		all, fixed := h.Path.Literals()
		stem, open := strings.CutSuffix(strings.TrimSuffix(s, "$"), ".*")
		switch {
		case fixed && len(all) == 1 && all[0] != "*" && !strings.HasPrefix(all[0], "/") || prefix != "" && prefix[0] != '/' && prefix != "*":
			r.Warnf(at.Pos, join(path, "path"), "%s never matches: paths begin with /", quote(s))
		case open && match.IsPlain(strings.TrimPrefix(stem, "^")) && stem != "" && !strings.HasSuffix(stem, "/"):
			r.Warnf(at.Pos, join(path, "path"), "%s also matches %sadmin: perhaps %s([/?].*)?", quote(s), stem, stem)
		}
	}
	if h.Host != nil {
		if s := h.Host.String(); unescapedDot(s) {
			r.Warnf(o.Get("host").Pos, join(path, "host"), "in %s a dot is any character: write \\.", quote(s))
		}
		if prefix := h.Host.Prefix(); prefix != strings.ToLower(prefix) {
			r.Warnf(o.Get("host").Pos, join(path, "host"), "%s never matches: hosts are compared in lower case", quote(h.Host.String()))
		}
	}
}

// unescapedDot reports whether a dot between letters stands for any character.
func unescapedDot(s string) bool {
	letter := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-'
	}
	for i := 1; i+1 < len(s); i++ {
		if s[i] == '.' && letter(s[i-1]) && letter(s[i+1]) && (i < 2 || s[i-2] != '\\') {
			return true
		}
	}
	return false
}
