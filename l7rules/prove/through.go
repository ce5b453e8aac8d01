package prove

import (
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
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

// protocol is that of the only requests that get through, "" where there is no such.
func (t through) protocol() l7rules.Protocol {
	if len(t.rules) == 0 {
		return ""
	}
	return t.rules[0].Protocol()
}

// lets reports whether a request gets through.
func (t through) lets(r flow.Request) bool {
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
	request flow.Request
	raw     bool
}

// beyond finds something that gets through a and not through b.
func (s *space) beyond(a, b through) (*witness, error) {
	switch {
	case a.nothing || b.everything():
		return nil, nil
	case a.everything() && b.nothing:
		return &witness{}, nil
	}
	protocol := a.protocol()
	if protocol == "" {
		protocol = b.protocol()
	}
	list, err := s.requests(s.behind(protocol, a, b))
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

// behind are the rules of one protocol behind what gets through: all that can make a
// difference to its requests.
func (s *space) behind(protocol l7rules.Protocol, all ...through) requestRules {
	list := requestRules{protocol: protocol}
	for _, t := range all {
		for _, rs := range t.rules {
			list.join(s.rules[rs])
		}
	}
	return list
}
