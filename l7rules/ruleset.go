package l7rules

import (
	"bytes"

	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// Ruleset judges the requests of one peer on one port: every request rule that
// covers them, of all policies. It is immutable and safe for concurrent use. The
// nil and the zero Ruleset deny.
type Ruleset struct {
	protocol Protocol

	deny  []httpRule
	allow []httpRule
	all   *Decision // a rule without request rules covers the same peer and port
	open  *Decision // nothing closes the direction
}

// httpRule is an HTTPRule prepared for matching: what it decides is made
// beforehand.
type httpRule struct {
	method, path, host *match.Pattern
	headers            []headerMatch
	decision           Decision
}

type headerMatch struct {
	name  []byte
	value []byte
	exact bool
}

// Protocol is the application protocol that the requests must be in.
func (rs *Ruleset) Protocol() Protocol {
	if rs == nil {
		return ""
	}
	return rs.protocol
}

// AllowsAll reports whether every request of the protocol is let through, so that
// the rules decide nothing but that it is one.
func (rs *Ruleset) AllowsAll() bool {
	return rs != nil && len(rs.deny) == 0 && (rs.all != nil || rs.open != nil)
}

// Decide judges one request: a deny rule that matches refuses it, else an allow rule
// that matches lets it through. A request of another protocol is refused. It does not
// allocate for a request that is let through.
func (rs *Ruleset) Decide(req flow.Request) Decision {
	if rs == nil || rs.protocol == "" {
		return Decision{Reason: "no request rules"}
	}
	switch r := req.(type) {
	case *HTTPRequest:
		if rs.protocol == HTTP && r != nil {
			return rs.decideHTTP(r)
		}
	}
	return Decision{Reason: "not a request of protocol " + string(rs.protocol)}
}

func (rs *Ruleset) decideHTTP(r *HTTPRequest) Decision {
	for i := range rs.deny {
		if rs.deny[i].matches(r) {
			return rs.deny[i].decision
		}
	}
	if rs.all != nil {
		return *rs.all
	}
	for i := range rs.allow {
		if rs.allow[i].matches(r) {
			return rs.allow[i].decision
		}
	}
	if rs.open != nil {
		return *rs.open
	}
	return Decision{Reason: rs.explainHTTP(r)}
}

func newHTTPRule(r *HTTPRule, d Decision) httpRule {
	h := httpRule{method: r.Method, path: r.Path, host: r.Host, decision: d}
	for _, m := range r.Headers {
		h.headers = append(h.headers, headerMatch{[]byte(m.Name), []byte(m.Value), m.Exact})
	}
	return h
}

func (h *httpRule) matches(r *HTTPRequest) bool {
	if h.method != nil && !h.method.Match(r.Method) ||
		h.path != nil && !h.path.Match(r.Path) ||
		h.host != nil && !h.host.Match(r.Host) {
		return false
	}
	for i := range h.headers {
		if !h.headers[i].matches(r.Header) {
			return false
		}
	}
	return true
}

// matches looks at every field of the name: where the sender repeats a field, who
// reads the request next may believe another one than we do.
func (m *headerMatch) matches(fields []HeaderField) bool {
	n, equal := 0, false
	for i := range fields {
		if equalFold(fields[i].Name, m.name) {
			n++
			equal = bytes.Equal(fields[i].Value, m.value)
		}
	}
	if m.exact {
		return n == 1 && equal
	}
	return n > 0
}

// equalFold compares field names, which are ASCII: unlike bytes.EqualFold it takes
// no other letter for one of them.
func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
