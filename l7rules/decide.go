package l7rules

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// decide is the meaning of a policy in one place: what the spans that cover one peer
// and port, sorted by rule, say together.
func (d *direction) decide(active []span) Entry {
	var whole *boundRule  // allows everything
	var denied *boundRule // denies everything, and only audits
	var judged []span     // with request rules
	for _, s := range active {
		r := &d.rules[s.rule]
		switch {
		case s.port >= 0 && r.Ports[s.port].Protocol != "":
			judged = append(judged, s)
		case r.Deny && !r.policy.Audit:
			return Entry{Action: ActionDeny, Policy: r.ref}
		case r.Deny && denied == nil:
			denied = r
		case !r.Deny && whole == nil:
			whole = r
		}
	}
	conflict := d.conflict(judged)
	if conflict != "" {
		// Those of policies that only audit give way.
		judged = slices.DeleteFunc(judged, func(s span) bool { return d.rules[s.rule].policy.Audit })
		if d.conflict(judged) != "" {
			return Entry{Action: ActionDeny, Reason: conflict}
		}
	}
	var e Entry
	switch {
	case len(judged) > 0:
		e = Entry{Action: ActionRedirect, Rules: d.ruleset(judged, whole, denied)}
		first := &d.rules[judged[0].rule]
		if whole != nil {
			e.Policy = whole.ref
		} else if !slices.ContainsFunc(judged, func(s span) bool { return &d.rules[s.rule] != first }) {
			e.Policy = first.ref
		}
		return e
	case whole != nil:
		e = Entry{Action: ActionAllow, Policy: whole.ref}
	case d.open:
		e = Entry{Action: ActionAllow, Reason: openReason}
	case d.audited:
		e = Entry{Action: ActionAllow, Audit: true}
	default:
		return Entry{}
	}
	switch {
	case denied != nil:
		e.Audit, e.Policy, e.Reason = true, denied.ref, ""
	case conflict != "":
		e.Audit, e.Policy, e.Reason = true, "", conflict
	}
	return e
}

const openReason = "no policy closes this direction"

// conflict names two spans whose request rules are in two protocols, "" if there are none.
func (d *direction) conflict(judged []span) string {
	for _, s := range judged {
		a, b := &d.rules[judged[0].rule], &d.rules[s.rule]
		if p, q := a.Ports[judged[0].port].Protocol, b.Ports[s.port].Protocol; p != q {
			return fmt.Sprintf("%s has %s rules and %s has %s rules for this peer and port: one application protocol is possible", a.ref, p, b.ref, q)
		}
	}
	return ""
}

// ruleset returns the one set of request rules for a list of spans, which are of one
// protocol. Whole is a rule that allows everything, denied one that only audits and
// refuses everything; either may be nil.
func (d *direction) ruleset(judged []span, whole, denied *boundRule) *Ruleset {
	var key []byte
	for _, s := range judged {
		key = binary.AppendUvarint(binary.AppendUvarint(key, uint64(s.rule)), uint64(s.port))
	}
	for _, r := range []*boundRule{whole, denied} {
		key = append(key, 0)
		if r != nil {
			key = append(key, r.ref...)
		}
	}
	if rs, ok := d.rulesets[string(key)]; ok {
		return rs
	}
	rs := &Ruleset{protocol: d.rules[judged[0].rule].Ports[judged[0].port].Protocol, audited: d.audited}
	// Rules that refuse come before those that only audit, which say what is recorded
	// where nobody refuses.
	for _, audit := range []bool{false, true} {
		for i, s := range judged {
			if i > 0 && judged[i-1].rule == s.rule && judged[i-1].port == s.port {
				continue // two overlapping ranges of one list
			}
			r := &d.rules[s.rule]
			switch {
			case r.Deny && r.policy.Audit == audit:
				dec := Decision{Policy: r.ref, Reason: "refused by a deny rule"}
				if audit {
					dec.Verdict = flow.Audit
				}
				rs.add(&r.Ports[s.port], true, dec)
			case !r.Deny && !audit:
				rs.add(&r.Ports[s.port], false, Decision{Verdict: flow.Forwarded, Policy: r.ref})
			}
		}
	}
	if whole != nil {
		rs.all = &Decision{Verdict: flow.Forwarded, Policy: whole.ref}
	}
	if denied != nil {
		rs.denied = &Decision{Verdict: flow.Audit, Policy: denied.ref, Reason: "refused by a deny rule"}
	}
	rs.lenient = (whole != nil || d.open || d.audited) && !slices.ContainsFunc(judged, func(s span) bool { return !d.rules[s.rule].policy.Audit })
	if d.open {
		rs.open = &Decision{Verdict: flow.Forwarded, Reason: openReason}
	}
	d.rulesets[string(key)] = rs
	return rs
}

func (rs *Ruleset) add(p *PortRule, deny bool, dec Decision) {
	http, names, kafka := &rs.allow, &rs.allowNames, &rs.allowKafka
	if deny {
		http, names, kafka = &rs.deny, &rs.denyNames, &rs.denyKafka
	}
	for i := range p.HTTP {
		h := newHTTPRule(&p.HTTP[i], &dec)
		for j := range h.headers {
			h.headers[j].any = deny && h.headers[j].exact
		}
		*http = append(*http, h)
	}
	for _, list := range [][]NameRule{p.DNS, p.TLS} {
		for _, n := range list {
			*names = append(*names, nameRule{n.Name, dec})
		}
	}
	for i := range p.Kafka {
		*kafka = append(*kafka, kafkaRule{&p.Kafka[i], dec})
	}
}
