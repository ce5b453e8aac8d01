package l7rules

import (
	"bytes"
	"sync"

	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// Ruleset judges the requests of one peer on one port: every request rule that
// covers them, of all policies. It is immutable and safe for concurrent use. The
// nil and the zero Ruleset deny.
type Ruleset struct {
	protocol Protocol

	// Rules whose policies only audit come after the others in deny.
	deny  []httpRule
	allow []httpRule

	denyNames, allowNames []nameRule // DNS and TLS
	denyKafka, allowKafka []kafkaRule

	all     *Decision // a rule without request rules covers the same peer and port
	open    *Decision // nothing closes the direction
	denied  *Decision // a rule without request rules would refuse the peer, but its policy only audits
	audited bool      // only policies that audit close the direction
	lenient bool      // NeverRefuses

	once  sync.Once
	index *httpIndex // of deny and allow, where they are many; see http_rules.go
}

// httpRule is an HTTPRule prepared for matching: what it decides is made
// beforehand.
type httpRule struct {
	method, path, host *match.Pattern
	grpc               string
	headers, log       []headerMatch
	decision           *Decision // shared by the rules of one list
}

type headerMatch struct {
	name  []byte
	value []byte
	exact bool
	any   bool // exact, and in a deny rule: one of several fields is enough
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
	return rs != nil && len(rs.deny)+len(rs.denyNames)+len(rs.denyKafka) == 0 && rs.denied == nil && (rs.all != nil || rs.open != nil)
}

// NeverRefuses reports whether only policies that audit want a look at the requests: then
// what they would refuse is let through, and bytes that are no request of the protocol go
// on as well.
func (rs *Ruleset) NeverRefuses() bool { return rs != nil && rs.lenient }

// Decide judges one request: a deny rule that matches refuses it, else an allow rule
// that matches lets it through. A request of another protocol is refused, and nil, which
// is a connection that carries something else, unless rs NeverRefuses. It does not allocate
// for a request that is let through.
func (rs *Ruleset) Decide(req flow.Request) Decision {
	if rs == nil || rs.protocol == "" {
		return Decision{Reason: "no request rules"}
	}
	switch r := req.(type) {
	case nil:
		if rs.NeverRefuses() {
			d, ok := rs.settle(nil, nil)
			if !ok {
				d.Reason = "no request of protocol " + string(rs.protocol)
			}
			return d
		}
	case *HTTPRequest:
		if rs.protocol == HTTP && r != nil {
			return rs.decideHTTP(r)
		}
	case *GRPCRequest:
		if rs.protocol == HTTP && r != nil {
			return rs.decideHTTP(&r.HTTPRequest)
		}
	case *DNSQuery:
		if rs.protocol == DNS && r != nil {
			return rs.decideName(r.Name)
		}
	case *ClientHello:
		if rs.protocol == TLS && r != nil {
			return rs.decideName(r.ServerName)
		}
	case *KafkaRequest:
		if rs.protocol == Kafka && r != nil {
			return rs.decideKafka(r)
		}
	}
	d := Decision{Reason: "not a request of protocol " + string(rs.protocol)}
	if rs.lenient {
		d.Verdict = flow.Audit
	}
	return d
}

func (rs *Ruleset) decideHTTP(r *HTTPRequest) Decision {
	var deny, allow *Decision
	denying, allowing := rs.first(r)
	if denying != nil {
		deny = denying.decision
	}
	if allowing != nil {
		allow = allowing.decision
		if len(allowing.log) > 0 && deny == nil {
			d := *allow
			d.Reason = allowing.logged(r)
			allow = &d
		}
	}
	d, ok := rs.settle(deny, allow)
	if !ok {
		d.Reason = rs.explainHTTP(r)
	}
	return d
}

// settle puts together what the rules say of one request: deny and allow are the decisions
// of the first rules that match, nil without one. It is the meaning of request rules in
// one place, audit.go's included. ok is false where no rule decided and the reason is for
// the caller to find.
func (rs *Ruleset) settle(deny, allow *Decision) (d Decision, ok bool) {
	if deny == nil {
		deny = rs.denied
	}
	if deny != nil && deny.Verdict != flow.Audit {
		return *deny, true
	}
	if rs.all != nil {
		allow = rs.all
	}
	if allow == nil {
		allow = rs.open
	}
	switch {
	case allow == nil && !rs.audited:
		return Decision{}, false
	case deny != nil:
		return *deny, true
	case allow == nil:
		return Decision{Verdict: flow.Audit}, false
	}
	return *allow, true
}

func newHTTPRule(r *HTTPRule, d *Decision) httpRule {
	h := httpRule{method: r.Method, path: r.Path, host: r.Host, grpc: r.GRPC, decision: d}
	for _, m := range r.Headers {
		h.headers = append(h.headers, headerMatch{name: []byte(m.Name), value: []byte(m.Value), exact: m.Exact})
	}
	for _, m := range r.Log {
		h.log = append(h.log, headerMatch{name: []byte(m.Name), value: []byte(m.Value), exact: m.Exact})
	}
	return h
}

func (h *httpRule) matches(r *HTTPRequest) bool {
	if h.method != nil && !h.method.Match(r.Method) ||
		h.path != nil && !h.path.Match(r.Path) ||
		h.host != nil && !h.host.Match(r.Host) {
		return false
	}
	return h.matchesHeaders(r)
}

func (h *httpRule) matchesHeaders(r *HTTPRequest) bool {
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
	n, equal := 0, 0
	for i := range fields {
		if equalFold(fields[i].Name, m.name) {
			n++
			if bytes.Equal(fields[i].Value, m.value) {
				equal++
			}
		}
	}
	switch {
	case m.any:
		return equal > 0
	case m.exact:
		return n == 1 && equal == 1
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
