package cnp

import (
	"errors"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/match"
)

// maxCost bounds the regular expressions of one file, in instructions. Each takes about
// 40 bytes.
const maxCost = 1 << 19

// rules reads the request rules beside a list of ports.
func (r *reader) rules(n *node, path string, pr *l7rules.PortRule, deny bool, d *document) {
	known := []string{"http", "dns", "kafka"}
	if d.ours() {
		known = append(known, "grpc")
	}
	o, ok := r.Object(n, path, known...)
	if !ok {
		return
	}
	if len(o.Fields) == len(o.Entries) && !slices.ContainsFunc(known, func(name string) bool { return o.Get(name) != nil }) {
		r.Errorf(n.Pos, path, "nothing in it: leave it out, which allows the whole port, or write http: [{}]")
		return
	}
	each := func(name string, protocol l7rules.Protocol, read func(*node, string)) {
		at := join(path, name)
		items, present := r.List(o.Get(name), at)
		if !present {
			return
		}
		if pr.Protocol != "" && pr.Protocol != protocol {
			r.Errorf(o.Get(name).Pos, at, "one application protocol per entry: write two entries")
			return
		}
		for i, item := range items {
			pr.Protocol = protocol
			read(item, index(at, i))
		}
	}
	each("http", l7rules.HTTP, func(n *node, at string) { pr.HTTP = append(pr.HTTP, r.httpRule(n, at)) })
	each("grpc", l7rules.HTTP, func(n *node, at string) { pr.HTTP = append(pr.HTTP, r.grpcRule(n, at)) })
	each("dns", l7rules.DNS, func(n *node, at string) { pr.DNS = append(pr.DNS, r.dnsRule(n, at)...) })
	each("kafka", l7rules.Kafka, func(n *node, at string) { pr.Kafka = append(pr.Kafka, r.kafkaRule(n, at, deny, d)) })
}

// grpcRule reads one element of grpc: a service with its package and a method, each exact
// or "*".
func (r *reader) grpcRule(n *node, path string) l7rules.HTTPRule {
	o, ok := r.Object(n, path, "service", "method")
	if !ok {
		return l7rules.HTTPRule{}
	}
	part := func(name string, dots bool) string {
		f := o.Get(name)
		if f == nil {
			return ""
		}
		at := join(path, name)
		s, ok := r.String(f, at)
		switch {
		case !ok || s == "*":
		case strings.Contains(s, "/"):
			r.Errorf(f.Pos, at, "%s: write service: pkg.Service and method: Method", quote(s))
		case strings.Contains(s, "*"):
			r.Errorf(f.Pos, at, "%s: \"*\" stands alone, for every %s", quote(s), name)
		case !isProtoName(s, dots):
			r.Errorf(f.Pos, at, "%s is no name of a %s: letters, digits and '_'", quote(s), name)
		case dots && !strings.Contains(s, "."):
			r.Warnf(f.Pos, at, "%s has no package: a call's path is /package.%s/Method, unless the .proto file has none", quote(s), s)
		}
		return s
	}
	rule, err := l7rules.NewGRPCRule(r.Origin(n.Pos), part("service", true), part("method", false))
	if err != nil {
		r.Errorf(n.Pos, path, "%v", err)
	}
	return rule
}

// isProtoName reports whether s is an identifier of a .proto file, with dots between
// several.
func isProtoName(s string, dots bool) bool {
	if !dots && strings.Contains(s, ".") || len(s) > match.MaxPatternLen/4 {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || part[0] >= '0' && part[0] <= '9' {
			return false
		}
		for i := range len(part) {
			if c := part[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_') {
				return false
			}
		}
	}
	return true
}

func (r *reader) httpRule(n *node, path string) l7rules.HTTPRule {
	h := l7rules.HTTPRule{Origin: r.Origin(n.Pos)}
	o, ok := r.Object(n, path, "method", "path", "host", "headers", "headerMatches")
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
	matches, _ := r.List(o.Get("headerMatches"), join(path, "headerMatches"))
	for i, f := range matches {
		r.headerMatch(f, index(join(path, "headerMatches"), i), &h)
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
	p, ok := r.patterns[s]
	if ok {
		return p // many rules have the same method
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
	r.patterns[s] = p
	return p
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
