package l7rules

import "github.com/weir-proxy/weir/l7rules/flow"

// first returns the first deny rule that matches a request, and the first allow rule; nil
// without one, and for the allow rule also where it decides nothing.
func (rs *Ruleset) first(r *HTTPRequest) (deny, allow *httpRule) {
	if len(rs.deny)+len(rs.allow) > fewRules {
		rs.once.Do(rs.makeIndex)
		if rs.index != nil {
			return rs.index.first(r)
		}
	}
	for i := range rs.deny {
		if rs.deny[i].matches(r) {
			deny = &rs.deny[i]
			break
		}
	}
	if rs.all != nil || deny != nil && deny.decision.Verdict != flow.Audit {
		return deny, nil
	}
	for i := range rs.allow {
		if rs.allow[i].matches(r) {
			return deny, &rs.allow[i]
		}
	}
	return deny, nil
}

// makeIndex compiles the rules. It is left to the first request: most sets that are made
// never see one.
func (rs *Ruleset) makeIndex() {
	allow := rs.allow
	if rs.all != nil {
		allow = nil
	}
	if len(rs.deny)+len(allow) > fewRules {
		rs.index = newHTTPIndex(rs.deny, allow)
	}
}

// nearest returns the allow rule that came nearest to matching a request, and how many of
// its fields match before the first one that does not; nil without rules.
func (rs *Ruleset) nearest(r *HTTPRequest) (rule *httpRule, matched int) {
	if rs.index != nil {
		if rule, matched, ok := rs.index.nearest(r); ok {
			return rule, matched
		}
	}
	matched = -1
	for i := range rs.allow {
		if n := rs.allow[i].matched(r); n > matched {
			rule, matched = &rs.allow[i], n
		}
	}
	return rule, matched
}
