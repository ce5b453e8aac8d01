package l7rules

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// EndpointPolicy is what all policies together mean for one set of labels. It is
// safe for concurrent use; what it answers depends on nothing but what it was
// compiled from. The zero value denies.
type EndpointPolicy struct {
	selected bool
	dirs     [2]direction
}

type direction struct {
	open     bool   // nothing closes it; false in the zero value, which denies
	audited  bool   // only policies that audit close it
	closedBy string // the first of those that close it; one that does not audit if there is one
	rules    []boundRule
	prefixes []netip.Prefix

	mu       sync.Mutex // guards what follows: answers kept for the next time
	byPeer   map[peerKey]*portTable
	tables   map[string]*portTable // by the set of rules that cover a peer
	rulesets map[string]*Ruleset   // by the set of port rules in it
}

// boundRule is a rule with what records say of it.
type boundRule struct {
	*Rule
	policy *Policy
	ref    string
}

type peerKey struct {
	id     identity.ID
	prefix netip.Prefix
	labels string
	names  string
}

// maxPeers bounds the answers kept by peer; they are made again beyond it.
const maxPeers = 1 << 16

// Compile collects the policies that select a subject. Their order decides nothing
// but which of several rules that allow the same is named in records.
//
// Two application protocols in the request rules of one selector and port are an error
// that names both documents.
func Compile(policies []*Policy, subject identity.Labels) (*EndpointPolicy, error) {
	var selecting []*Policy
	for _, p := range policies {
		if p.Subject.Matches(subject) {
			selecting = append(selecting, p)
		}
	}
	return compileSelecting(selecting)
}

// compileSelecting is Compile for policies that all select the subject.
func compileSelecting(policies []*Policy) (*EndpointPolicy, error) {
	ep := &EndpointPolicy{selected: len(policies) > 0}
	ep.dirs[flow.Egress].open, ep.dirs[flow.Ingress].open = true, true
	for _, p := range policies {
		for i := range p.Rules {
			r := &p.Rules[i]
			if r.Direction > flow.Ingress {
				return nil, fmt.Errorf("compile policy %s: %s: unknown direction %d", p.FullName(), r.Origin, r.Direction)
			}
			d := &ep.dirs[r.Direction]
			d.rules = append(d.rules, boundRule{r, p, p.Ref(r)})
			for _, c := range r.Peers.CIDRs {
				d.prefixes = append(append(d.prefixes, c.Prefix), c.Except...)
			}
		}
		for dir := range ep.dirs {
			if p.closes(flow.Direction(dir)) {
				ep.dirs[dir].close(p)
			}
		}
	}
	for i := range ep.dirs {
		d := &ep.dirs[i]
		slices.SortFunc(d.prefixes, netip.Prefix.Compare)
		d.prefixes = slices.Compact(d.prefixes)
		if err := d.checkProtocols(); err != nil {
			return nil, err
		}
	}
	return ep, nil
}

// close is called for each policy that closes d.
func (d *direction) close(p *Policy) {
	switch {
	case d.open:
		d.open, d.audited, d.closedBy = false, p.Audit, p.FullName()
	case d.audited && !p.Audit:
		d.audited, d.closedBy = false, p.FullName()
	}
}

// Selected reports whether some document selects the subject.
func (ep *EndpointPolicy) Selected() bool { return ep.selected }

// HasRules reports whether any rule is about a direction. Where none is, everything is
// open and there is nothing to look up. Where one is, tables decide, also if the direction
// is not Enforced: a deny rule then still denies, and request rules still need the proxy.
func (ep *EndpointPolicy) HasRules(dir flow.Direction) bool {
	return dir > flow.Ingress || len(ep.dirs[dir].rules) > 0 || !ep.dirs[dir].open
}

// Enforced reports whether what no rule names is refused in a direction. It is not where
// all policies that close it only audit.
func (ep *EndpointPolicy) Enforced(dir flow.Direction) bool {
	return dir > flow.Ingress || !ep.dirs[dir].open && !ep.dirs[dir].audited
}

// Prefixes returns every prefix that rules of a direction name, exceptions included,
// sorted. An address outside is the peer of the longest that contains it.
func (ep *EndpointPolicy) Prefixes(dir flow.Direction) []netip.Prefix {
	if dir > flow.Ingress {
		return nil
	}
	return slices.Clone(ep.dirs[dir].prefixes)
}

// checkProtocols finds two application protocols on one selector and port.
func (d *direction) checkProtocols() error {
	type use struct {
		rule *boundRule
		port *PortRule
	}
	seen := map[string][]use{}
	for i := range d.rules {
		r := &d.rules[i]
		for j := range r.Ports {
			p := &r.Ports[j]
			if p.Protocol == "" {
				continue
			}
			for _, key := range r.Peers.keys() {
				for _, u := range seen[key] {
					if u.port.Protocol == p.Protocol {
						continue
					}
					if at, ok := overlap(u.port.Ports, p.Ports); ok {
						return fmt.Errorf("%s: %s has %s rules for %s to %s, where %s (%s) has %s rules: one application protocol per selector and port",
							p.Origin, r.ref, p.Protocol, at, key, u.rule.ref, u.port.Origin, u.port.Protocol)
					}
				}
				// One use for each protocol and set of ports would do, but they are few.
				seen[key] = append(seen[key], use{r, p})
			}
		}
	}
	return nil
}

func overlap(a, b []PortRange) (PortRange, bool) {
	for _, x := range a {
		for _, y := range b {
			if x.Proto == y.Proto && x.First <= y.Last && y.First <= x.Last {
				return PortRange{x.Proto, max(x.First, y.First), min(x.Last, y.Last)}, true
			}
		}
	}
	return PortRange{}, false
}

// keys are the texts of the selectors in p, the same for equal ones.
func (p *Peers) keys() []string {
	if p.Any {
		return []string{"any peer"}
	}
	var keys []string
	for _, e := range p.Entities {
		keys = append(keys, string(e))
	}
	for _, s := range p.Endpoints {
		keys = append(keys, s.String())
	}
	for _, c := range p.CIDRs {
		key := c.Prefix.String()
		for _, e := range c.Except {
			key += " except " + e.String()
		}
		keys = append(keys, key)
	}
	for _, n := range p.Names {
		keys = append(keys, "name "+n.Key())
	}
	return keys
}

// DenyAll is a policy that lets nothing through in either direction: for a subject
// whose own policies cannot be resolved.
func DenyAll() *EndpointPolicy {
	p := &Policy{Rules: []Rule{{Direction: flow.Egress}, {Direction: flow.Ingress}}}
	ep, err := Compile([]*Policy{p}, identity.Labels{})
	if err != nil {
		panic(err) // nothing in it can be wrong
	}
	return ep
}
