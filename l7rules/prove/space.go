package prove

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// Flow is one flow, and the request on it that is meant.
type Flow struct {
	From, To End
	Proto    uint8
	Port     uint16
	// Request is nil for the connection alone.
	Request flow.Request
	// Raw means bytes in no protocol that rules can be written in.
	Raw bool
}

// protocols are those that are looked at.
var protocols = [...]uint8{l7rules.ProtoTCP, l7rules.ProtoUDP, l7rules.ProtoSCTP}

// policySet is one set of policies, resolved for each end that is judged.
type policySet struct {
	policies []*l7rules.Policy
	ends     []*resolved // nil where nothing is judged
}

// resolved is what policies mean for an end. Ends that the same policies select share it.
type resolved struct {
	policy   *l7rules.EndpointPolicy
	selected []*l7rules.Policy
	prefixes [2][]netip.Prefix
	covers   [2][]set             // of each rule of a direction: the ends it is about
	byPeer   [2][]*table          // by end; nil until it is asked for
	byRules  [2]map[string]*table // by the set of rules about an end
}

func (s *space) resolve(policies []*l7rules.Policy) (*policySet, error) {
	ps := &policySet{policies: policies, ends: make([]*resolved, len(s.ends))}
	bySelection := map[string]*resolved{}
	for i := range s.ends {
		if !s.ends[i].judged() {
			continue
		}
		var key []byte
		var selected []*l7rules.Policy
		for n, p := range policies {
			if p.Subject.Matches(s.ends[i].Labels) {
				key = binary.AppendUvarint(key, uint64(n))
				selected = append(selected, p)
			}
		}
		r := bySelection[string(key)]
		if r == nil {
			ep, err := l7rules.Compile(selected, s.ends[i].Labels)
			if err != nil {
				return nil, fmt.Errorf("for an endpoint %s: %w", &s.ends[i], err)
			}
			r = &resolved{policy: ep, selected: selected}
			for dir := range r.prefixes {
				r.prefixes[dir] = ep.Prefixes(flow.Direction(dir))
				r.byPeer[dir] = make([]*table, len(s.ends))
				r.byRules[dir] = map[string]*table{}
			}
			for _, p := range selected {
				for j := range p.Rules {
					rule := &p.Rules[j]
					r.covers[rule.Direction] = append(r.covers[rule.Direction], s.about(&rule.Peers))
				}
			}
			bySelection[string(key)] = r
		}
		ps.ends[i] = r
	}
	return ps, nil
}

// about are the ends among peers.
func (s *space) about(peers *l7rules.Peers) set {
	key := fmt.Sprint(peers.Any, peers.Endpoints, peers.Entities, peers.CIDRs, peers.Names)
	if m, ok := s.peers[key]; ok {
		return m
	}
	m := newSet(len(s.ends))
	for i := range s.ends {
		if peers.Match(s.asPeers[i]) {
			m.add(i)
		}
	}
	s.peers[key] = m
	return m
}

// peerOf is an end as rules that name prefixes see it.
func peerOf(e *End, prefixes []netip.Prefix) l7rules.Peer {
	if e.Addr.IsValid() {
		p := l7rules.PeerOf(e.Addr, prefixes)
		p.Names = e.Names
		return p
	}
	return l7rules.Peer{ID: e.ID, Labels: e.Labels}
}

// side is what one side says of a flow.
type side struct {
	action l7rules.Action
	rules  *l7rules.Ruleset // ActionRedirect only
	policy string
}

// ports is a range of ports, up to the last, on which one side says the same.
type ports struct {
	last uint16
	side
}

// table is what one side says of all ports.
type table struct {
	protos [len(protocols)][]ports // without gaps
	// meaning is the same for tables that are made of rules with the same text, whatever
	// their names: they decide the same. Else it may still be that they do.
	meaning string
}

// unjudged is the table of an end that no policy judges.
func unjudged() *table {
	var t table
	for i := range t.protos {
		t.protos[i] = []ports{{last: 65535, side: side{action: l7rules.ActionAllow}}}
	}
	return &t
}

// table is what the policies of one end say to another. Of ends that the same rules are
// about it is the same.
func (s *space) table(r *resolved, dir flow.Direction, peer int) *table {
	if r == nil {
		return s.open
	}
	if t := r.byPeer[dir][peer]; t != nil {
		return t
	}
	rules := newSet(len(r.covers[dir]))
	for i, c := range r.covers[dir] {
		if c.has(peer) {
			rules.add(i)
		}
	}
	key := rules.key()
	t := r.byRules[dir][key]
	if t == nil {
		t = newTable(r.policy.Table(dir, peerOf(&s.ends[peer], r.prefixes[dir])))
		t.meaning = r.meaning(dir, rules)
		r.byRules[dir][key] = t
	}
	r.byPeer[dir][peer] = t
	return t
}

// meaning is the text of what decides in a direction: which policies close it, and the
// rules about some end, without whom they are about.
func (r *resolved) meaning(dir flow.Direction, rules set) string {
	var b strings.Builder
	i := 0
	for _, p := range r.selected {
		some := false
		for j := range p.Rules {
			rule := &p.Rules[j]
			if rule.Direction != dir {
				continue
			}
			some = true
			if rules.has(i) {
				fmt.Fprintf(&b, "%v %v %v\n", rule.Deny, p.Audit, rule.AnyPort)
				for k := range rule.Ports {
					requests := requestRules{protocol: rule.Ports[k].Protocol}
					requests.add(&rule.Ports[k])
					fmt.Fprintf(&b, "%v %s\n", rule.Ports[k].Ports, requests.key())
				}
			}
			i++
		}
		fmt.Fprintf(&b, "policy %v %v %v %v\n", some, p.Open[dir], p.Closes[dir], p.Audit)
	}
	return b.String()
}

func newTable(entries []l7rules.Entry) *table {
	var t table
	for i, proto := range protocols {
		if !slices.ContainsFunc(entries, func(e l7rules.Entry) bool { return e.Proto == proto }) {
			proto = 0 // what the table says of every protocol that it does not list
		}
		next := 0
		for _, e := range entries {
			if e.Proto != proto {
				continue
			}
			if int(e.First) > next {
				t.protos[i] = append(t.protos[i], ports{last: e.First - 1})
			}
			t.protos[i] = append(t.protos[i], ports{e.Last, side{e.Action, e.Rules, e.Policy}})
			next = int(e.Last) + 1
		}
		if next <= 65535 {
			t.protos[i] = append(t.protos[i], ports{last: 65535})
		}
	}
	return &t
}

// each calls f with the ranges of ports of one protocol on which none of the tables
// changes, from port 1 on: nothing can be sent to port 0.
func each(proto int, tables []*table, cuts []uint16, f func(first, last uint16, sides []side) error) error {
	at := make([]int, len(tables))
	sides := make([]side, len(tables))
	for first := 1; first <= 65535; {
		last := 65535
		for i := range tables {
			list := tables[i].protos[proto]
			for int(list[at[i]].last) < first {
				at[i]++
			}
			sides[i] = list[at[i]].side
			last = min(last, int(list[at[i]].last))
		}
		for _, c := range cuts { // a range begins at a cut
			if int(c) > first {
				last = min(last, int(c)-1)
			}
		}
		if err := f(uint16(first), uint16(last), sides); err != nil {
			return err
		}
		first = last + 1
	}
	return nil
}

// space is everything that can be said, and what sets of policies say of it.
type space struct {
	*bench
	ends []End
	sets []*policySet
	// rules are the request rules behind a set of them, found again in the policies: what
	// can make a difference to it.
	rules map[*l7rules.Ruleset]requestRules

	asPeers []l7rules.Peer // of ends, by all prefixes that any policy names
	peers   map[string]set // ends by the text of a rule's peers
	open    *table         // of ends that nothing judges
}

// maxPairs bounds the pairs of ends that are gone through.
const maxPairs = 20_000_000

func newSpace(d *differences, known Known, sets ...[]*l7rules.Policy) (*space, error) {
	for _, policies := range sets {
		d.policies(policies)
	}
	s := &space{bench: newBench(), rules: map[*l7rules.Ruleset]requestRules{}, peers: map[string]set{}, open: unjudged()}
	ends, err := d.ends(s.bench, known)
	if err != nil {
		return nil, err
	}
	s.ends = ends
	for i := range ends {
		s.asPeers = append(s.asPeers, peerOf(&ends[i], d.prefixes))
	}
	if len(ends)*len(ends) > maxPairs {
		return nil, &Unknown{Reason: fmt.Sprintf("there are %d kinds of senders and receivers, and at most %d pairs are looked at; the label %s has the most values",
			len(ends), maxPairs, busiest(d.selectors))}
	}
	for _, policies := range sets {
		set, err := s.resolve(policies)
		if err != nil {
			return nil, err
		}
		s.sets = append(s.sets, set)
	}
	return s, nil
}

// tables are what both sides of a pair say in each set: egress, ingress, egress, ...
func (s *space) tables(dst []*table, from, to int) []*table {
	for _, set := range s.sets {
		dst = append(dst, s.table(set.ends[from], flow.Egress, to), s.table(set.ends[to], flow.Ingress, from))
	}
	return dst
}

// pairs calls f with every sender and receiver that a policy may judge.
func (s *space) pairs(f func(from, to int) error) error {
	for from := range s.ends {
		if s.ends[from].Declared || s.ends[from].Names != nil {
			continue // destinations only
		}
		for to := range s.ends {
			if !s.ends[from].judged() && !s.ends[to].judged() {
				continue
			}
			if err := f(from, to); err != nil {
				return err
			}
		}
	}
	return nil
}

// note remembers the rules behind the sets of a pair's sides.
func (s *space) note(from, to int, proto uint8, port uint16, sides []side) {
	for i, sd := range sides {
		if sd.rules == nil {
			continue
		}
		if _, ok := s.rules[sd.rules]; ok {
			continue
		}
		dir, subject, peer := flow.Egress, from, to
		if i%2 == 1 {
			dir, subject, peer = flow.Ingress, to, from
		}
		r := s.sets[i/2].ends[subject]
		s.rules[sd.rules] = r.requestRules(sd.rules, func(rule *l7rules.Rule) bool {
			return rule.Direction == dir && s.about(&rule.Peers).has(peer)
		}, proto, port)
	}
}
