package prove

import (
	"github.com/weir-proxy/weir/l7rules"
)

// through is what gets through both sides on a range of ports: nothing, everything, or
// the requests that every one of some sets of rules lets through.
type through struct {
	nothing bool
	rules   []*l7rules.Ruleset // empty: everything, unless nothing
}

func throughBoth(egress, ingress side) through {
	var t through
	for _, s := range [...]side{egress, ingress} {
		switch s.action {
		case l7rules.ActionAllow:
		case l7rules.ActionRedirect:
			if !s.rules.NeverRefuses() {
				t.rules = append(t.rules, s.rules)
			}
		default:
			return through{nothing: true}
		}
	}
	if len(t.rules) == 2 && t.rules[0].Protocol() != t.rules[1].Protocol() {
		return through{nothing: true} // what the one understands the other refuses
	}
	return t
}

func (t through) everything() bool { return !t.nothing && len(t.rules) == 0 }

// lets reports whether a request gets through.
func (t through) lets(r *l7rules.HTTPRequest) bool {
	if t.nothing {
		return false
	}
	for _, rs := range t.rules {
		if !rs.Decide(r).Allowed() {
			return false
		}
	}
	return true
}

// witness is what shows that something gets through: the zero value is the connection.
type witness struct {
	request *l7rules.HTTPRequest
	raw     bool
}

// beyond finds something that gets through a and not through b. rules are all that can
// make a difference to either.
func (s *space) beyond(a, b through, rules []*l7rules.HTTPRule) (*witness, error) {
	switch {
	case a.nothing || b.everything():
		return nil, nil
	case a.everything() && b.nothing:
		return &witness{}, nil
	}
	if err := onlyHTTP(a, b); err != nil {
		return nil, err
	}
	list, err := s.requests(rules)
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		if a.lets(r) && !b.lets(r) {
			return &witness{request: r}, nil
		}
	}
	if a.everything() {
		return &witness{raw: true}, nil
	}
	return nil, nil
}

// behind are the rules behind all of some things that get through.
func (s *space) behind(all ...through) []*l7rules.HTTPRule {
	var list []*l7rules.HTTPRule
	for _, t := range all {
		for _, rs := range t.rules {
			list = append(list, s.rules[rs]...)
		}
	}
	return list
}

// onlyHTTP is an Unknown where requests of another protocol would have to be told apart.
func onlyHTTP(all ...through) error {
	for _, t := range all {
		for _, rs := range t.rules {
			if rs.Protocol() != l7rules.HTTP {
				return &Unknown{Reason: string(rs.Protocol()) + " rules are not compared"}
			}
		}
	}
	return nil
}
