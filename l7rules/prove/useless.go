package prove

import (
	"slices"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// maxTrials bounds how often a table is made without one of its rules.
const maxTrials = 100_000

// useless finds rules without which everything would be the same: allow rules that others
// shadow, and deny rules that refuse nothing that is allowed. Of two that do the same the
// later one is found. Where policies audit, a rule also decides what is recorded, so
// nothing is said of them.
func (v *review) useless(policies []*l7rules.Policy, known Known) {
	s, err := newSpace(&differences{seen: map[string]bool{}}, known, policies)
	if err != nil {
		return
	}
	s.bench = v.bench
	u := &usefulness{space: s, users: map[*l7rules.Policy][]*resolved{}, gone: map[*l7rules.Rule]bool{}, refs: map[string]l7rules.Origin{}}
	for _, p := range policies {
		for i := range p.Rules {
			u.refs[p.Ref(&p.Rules[i])] = p.Rules[i].Origin
		}
	}
	seen := map[*resolved]int{}
	for i, r := range s.sets[0].ends {
		if r == nil {
			continue
		}
		if _, ok := seen[r]; ok {
			continue
		}
		seen[r] = i
		for _, p := range r.selected {
			u.users[p] = append(u.users[p], r)
		}
	}
	var findings []Finding
	for i := len(policies) - 1; i >= 0; i-- {
		p := policies[i]
		for j := len(p.Rules) - 1; j >= 0; j-- {
			r := &p.Rules[j]
			switch {
			case !named(&r.Peers):
				if r.Deny {
					findings = append(findings, Finding{r.Origin, field(p, r), "it names nobody, so it denies nothing; it closes the direction, as " + r.Direction.String() + ": [{}] does"})
				}
				continue
			case u.matters(p, r):
				continue
			}
			u.gone[r] = true
			findings = append(findings, Finding{r.Origin, field(p, r), u.text(p, r)})
		}
	}
	slices.Reverse(findings)
	v.findings = append(v.findings, findings...)
}

func named(p *l7rules.Peers) bool {
	return p.Any || len(p.Endpoints)+len(p.Entities)+len(p.CIDRs)+len(p.Names) > 0
}

type usefulness struct {
	*space
	users  map[*l7rules.Policy][]*resolved
	gone   map[*l7rules.Rule]bool // useless ones
	refs   map[string]l7rules.Origin
	trials int
	by     []string // the rules that decide instead of the one that was tried last
	rest   bool     // nothing decides some of it
}

// text says what is wrong with a rule that does not matter.
func (u *usefulness) text(p *l7rules.Policy, r *l7rules.Rule) string {
	others, s := "other rules together", ""
	if len(u.by) == 1 && u.by[0] != "" {
		others, s = u.by[0], "s"
		if at := u.refs[others]; at.Line > 0 {
			others += " (" + at.String() + ")"
		}
	}
	switch {
	case r.Deny && len(u.by) > 0 && !u.rest:
		return "shadowed: " + others + " refuse" + s + " all of this"
	case r.Deny:
		return "nothing is denied by it: nothing of this is allowed without it"
	case len(u.by) > 0:
		return "shadowed: " + others + " allow" + s + " all of this"
	case p.Open[r.Direction]:
		return "it changes nothing: where this policy holds, nothing closes " + r.Direction.String()
	}
	return "nothing is allowed by it: deny rules refuse all of this"
}

// matters reports whether some table is another without the rule. It says so as well where
// it cannot tell.
func (u *usefulness) matters(p *l7rules.Policy, r *l7rules.Rule) bool {
	u.by, u.rest = nil, false
	about := u.about(&r.Peers)
	tried := false
	for _, res := range u.users[p] {
		if slices.ContainsFunc(res.selected, func(p *l7rules.Policy) bool { return p.Audit }) {
			return true
		}
		before, after := u.without(res, nil), u.without(res, r)
		if before == nil || after == nil {
			return true
		}
		done := map[string]bool{}
		matters := false
		about.each(func(peer int) {
			if matters {
				return
			}
			key := u.key(res, r.Direction, peer)
			if done[key] {
				return
			}
			done[key] = true
			if u.trials++; u.trials > maxTrials {
				matters = true
				return
			}
			tried = true
			matters = u.differs(before, after, res, r, peer)
		})
		if matters {
			return true
		}
	}
	return !tried
}

// key is the same for peers that the same rules are about.
func (u *usefulness) key(res *resolved, dir flow.Direction, peer int) string {
	rules := newSet(len(res.covers[dir]))
	for i, c := range res.covers[dir] {
		if c.has(peer) {
			rules.add(i)
		}
	}
	return rules.key()
}

// without resolves policies without those rules that are gone already, and without one
// more. The direction stays as closed as it was.
func (u *usefulness) without(res *resolved, r *l7rules.Rule) *l7rules.EndpointPolicy {
	var policies []*l7rules.Policy
	for _, p := range res.selected {
		c := *p
		c.Rules = nil
		for i := range p.Rules {
			if o := &p.Rules[i]; o == r || u.gone[o] {
				c.Closes[o.Direction] = c.Closes[o.Direction] || !p.Open[o.Direction]
			} else {
				c.Rules = append(c.Rules, *o)
			}
		}
		policies = append(policies, &c)
	}
	for i := range u.sets[0].ends {
		if u.sets[0].ends[i] == res {
			ep, err := l7rules.Compile(policies, u.ends[i].Labels)
			if err != nil {
				return nil
			}
			return ep
		}
	}
	return nil
}

// differs compares the tables of a peer.
func (u *usefulness) differs(before, after *l7rules.EndpointPolicy, res *resolved, r *l7rules.Rule, peer int) bool {
	tables := []*table{
		newTable(before.Table(r.Direction, peerOf(&u.ends[peer], res.prefixes[r.Direction]))),
		newTable(after.Table(r.Direction, peerOf(&u.ends[peer], res.prefixes[r.Direction]))),
	}
	allow := side{action: l7rules.ActionAllow}
	differs := false
	for i, proto := range protocols {
		// An error cannot come from what is called.
		_ = each(i, tables, nil, func(first, last uint16, sides []side) error {
			if differs {
				return nil
			}
			for _, sd := range sides {
				if sd.rules == nil {
					continue
				}
				// Of the rules that are there, all: more than count, and so enough.
				u.rules[sd.rules] = res.requestRules(sd.rules, func(rule *l7rules.Rule) bool {
					return rule.Direction == r.Direction && u.about(&rule.Peers).has(peer)
				}, proto, first)
			}
			a, b := throughBoth(sides[0], allow), throughBoth(sides[1], allow)
			x, err1 := u.beyond(a, b)
			y, err2 := u.beyond(b, a)
			differs = x != nil || y != nil || err1 != nil || err2 != nil
			if !covers(r, proto, first, last) {
				return nil
			}
			decided := sides[1].policy != "" || sides[1].action == l7rules.ActionRedirect
			switch denies := sides[1].action == l7rules.ActionDeny; {
			case !decided || denies != r.Deny:
				u.rest = true
			case !slices.Contains(u.by, sides[1].policy):
				u.by = append(u.by, sides[1].policy)
			}
			return nil
		})
	}
	return differs
}

// covers reports whether a rule is about one of some ports.
func covers(r *l7rules.Rule, proto uint8, first, last uint16) bool {
	return r.AnyPort || slices.ContainsFunc(r.Ports, func(pr l7rules.PortRule) bool {
		return slices.ContainsFunc(pr.Ports, func(p l7rules.PortRange) bool { return p.Proto == proto && p.First <= last && first <= p.Last })
	})
}
