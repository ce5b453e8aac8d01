package prove

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
)

// Proof is what became of a claim: proved if both Flow and Unknown are nil.
type Proof struct {
	Claims []*Claim // one, or all Only claims with the same scope
	// Flow gets through and should not.
	Flow *Flow
	// Unknown says why there is no answer.
	Unknown *Unknown
}

// Prove looks for a flow that contradicts a claim. The error says that a claim is about
// nobody, that the policies contradict each other, or is an *Unknown.
func Prove(policies []*l7rules.Policy, claims []*Claim, known Known) ([]Proof, error) {
	d := &differences{seen: map[string]bool{}}
	for _, c := range claims {
		for _, w := range []*Who{&c.From, &c.To} {
			if w.selector != nil {
				d.selector(*w.selector)
			}
			if w.prefix.IsValid() {
				d.cidr(l7rules.CIDR{Prefix: w.prefix})
			}
			if w.name != nil {
				d.name(*w.name, l7rules.Origin{})
				d.combine = true
			}
		}
	}
	s, err := newSpace(d, known, policies)
	if err != nil {
		return nil, err
	}
	var proofs []Proof
	for _, group := range groups(claims) {
		p, err := s.prove(group, d.selectors)
		if err != nil {
			return nil, err
		}
		proofs = append(proofs, p)
	}
	return proofs, nil
}

// groups puts claims of one scope together.
func groups(claims []*Claim) [][]*Claim {
	var list [][]*Claim
	at := map[string]int{}
	for _, c := range claims {
		if !c.Only {
			list = append(list, []*Claim{c})
			continue
		}
		key := fmt.Sprint(c.ToFirst, " ", c.scope())
		if i, ok := at[key]; ok {
			list[i] = append(list[i], c)
			continue
		}
		at[key] = len(list)
		list = append(list, []*Claim{c})
	}
	return list
}

// scope is the end that an Only is about.
func (c *Claim) scope() *Who {
	if c.ToFirst {
		return &c.To
	}
	return &c.From
}

// Describe is the text of the claims.
func (p *Proof) Describe() string {
	word := "never"
	if p.Claims[0].Only {
		word = "only"
	}
	var texts []string
	for _, c := range p.Claims {
		texts = append(texts, c.Text)
	}
	return word + " " + strings.Join(texts, " | ")
}

func (s *space) prove(group []*Claim, selectors []identity.Selector) (Proof, error) {
	proof := Proof{Claims: group}
	claims := make([]bound, len(group))
	var cuts []uint16
	for i, c := range group {
		claims[i] = bound{c, s.members(&c.From, selectors), s.members(&c.To, selectors)}
		if c.First > 0 {
			cuts = append(cuts, c.First)
		}
		if c.Last < 65535 {
			cuts = append(cuts, c.Last+1)
		}
	}
	asked := false
	err := s.pairs(func(from, to int) error {
		if proof.Flow != nil || !claims[0].concerns(from, to) {
			return nil
		}
		asked = true
		tables := s.tables(nil, from, to)
		for i, proto := range protocols {
			err := each(i, tables, cuts, func(first, last uint16, sides []side) error {
				if proof.Flow != nil {
					return nil
				}
				s.note(from, to, proto, first, sides)
				w, err := s.contradiction(claims, from, to, proto, first, throughBoth(sides[0], sides[1]))
				if u, ok := err.(*Unknown); ok {
					proof.Unknown = u
					return nil
				}
				if err != nil || w == nil {
					return err
				}
				proof.Flow = &Flow{From: s.ends[from], To: s.ends[to], Proto: proto, Port: readable(proto, first, last), Request: w.request, Raw: w.raw}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return proof, err
	case !asked:
		return proof, fmt.Errorf("%q is about nobody that policies judge: is one of its ends an endpoint?", group[0].Text)
	case proof.Flow != nil:
		proof.Unknown = nil
	}
	return proof, nil
}

// bound is a claim and the ends it is about.
type bound struct {
	*Claim
	from, to set
}

// concerns reports whether a pair can contradict the claim.
func (c *bound) concerns(from, to int) bool {
	switch {
	case c.Only && c.ToFirst:
		return c.to.has(to)
	case c.Only:
		return c.from.has(from)
	}
	return c.from.has(from) && c.to.has(to)
}

// covers reports whether the claim is about flows of a pair on a port.
func (c *bound) covers(from, to int, proto uint8, port uint16) bool {
	switch {
	case c.Proto != 0 && c.Proto != proto:
		return false
	case c.Requests != nil && proto != l7rules.ProtoTCP && (c.Requests.rules.protocol != l7rules.DNS || proto != l7rules.ProtoUDP):
		return false // these requests do not go there
	}
	return c.from.has(from) && c.to.has(to) && c.First <= port && port <= c.Last
}

// contradiction finds something among what gets through that should not.
func (s *space) contradiction(claims []bound, from, to int, proto uint8, port uint16, t through) (*witness, error) {
	if t.nothing {
		return nil, nil
	}
	if c := &claims[0]; !c.Only {
		switch {
		case !c.covers(from, to, proto, port):
			return nil, nil
		case c.Requests == nil:
			return s.beyond(t, through{nothing: true})
		case t.protocol() != "" && t.protocol() != c.Requests.rules.protocol:
			return nil, nil
		}
		return s.search(t, c.Requests.rules.protocol, []*Requests{c.Requests}, true)
	}
	var may []*Requests
	for i := range claims {
		if c := &claims[i]; c.covers(from, to, proto, port) {
			if c.Requests == nil {
				return nil, nil
			}
			may = append(may, c.Requests)
		}
	}
	if len(may) == 0 {
		return s.beyond(t, through{nothing: true})
	}
	if p := t.protocol(); p != "" {
		return s.search(t, p, may, false)
	}
	for _, m := range may {
		if w, err := s.search(t, m.rules.protocol, may, false); err != nil || w != nil {
			return w, err
		}
	}
	return &witness{raw: true}, nil
}

// search looks for a request that gets through and that one of some claims is about, or
// that none is.
func (s *space) search(t through, protocol l7rules.Protocol, claims []*Requests, about bool) (*witness, error) {
	rules := s.behind(protocol, t)
	for _, c := range claims {
		rules.join(c.rules)
	}
	list, err := s.requests(rules)
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		is := slices.ContainsFunc(claims, func(c *Requests) bool { return c.covers(r, !about) })
		if is == about && t.lets(r) {
			return &witness{request: r}, nil
		}
	}
	return nil, nil
}

// members are the ends that a Who is about.
func (s *space) members(w *Who, selectors []identity.Selector) set {
	m := newSet(len(s.ends))
	for i := range s.ends {
		if w.has(&s.ends[i], selectors) {
			m.add(i)
		}
	}
	return m
}

func (w *Who) has(e *End, selectors []identity.Selector) bool {
	switch {
	case w.labels != nil:
		return e.ID.IsEndpoint() && signature(selectors, e.Labels).key() == signature(selectors, *w.labels).key()
	case w.selector != nil:
		return e.ID.IsEndpoint() && w.selector.Matches(e.Labels)
	case w.name != nil:
		return slices.ContainsFunc(e.Names, w.name.Match)
	case w.prefix.IsValid():
		return e.Addr.IsValid() && w.prefix.Contains(e.Addr)
	case w.entity != "":
		p := l7rules.Peers{Entities: []l7rules.Entity{w.entity}}
		return p.Match(l7rules.Peer{ID: e.ID, Labels: e.Labels})
	}
	return true
}

// readable is a port of a range that people know, else the first.
func readable(proto uint8, first, last uint16) uint16 {
	known := []uint16{80, 443, 8080}
	if proto == l7rules.ProtoUDP {
		known = []uint16{53}
	}
	for _, p := range known {
		if first <= p && p <= last {
			return p
		}
	}
	return first
}
