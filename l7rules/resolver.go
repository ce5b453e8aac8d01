package l7rules

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// Resolver is what a list of policies means for a set of subjects and the peers they can
// tell apart. It is immutable: a change makes another one, which takes over what the
// change does not touch. The zero value has no policies, no subjects and no peers.
type Resolver struct {
	policies []*Policy
	peers    []Peer
	subjects map[string]*subject // by labels
	covers   map[*Rule]bitset    // who of peers a rule is about
}

// subject is what is kept for one set of labels.
type subject struct {
	labels    identity.Labels
	selecting []*Policy
	policy    *EndpointPolicy
}

// Update resolves policies for subjects; the peers stay. A policy that says what one of before
// said, in whatever place, is that one; a subject selected by the same policies as before
// keeps its EndpointPolicy, which subjects selected by the same ones share. So what is
// the same pointer in both Resolvers needs no second look.
//
// The error names a subject for which the policies cannot be resolved.
func (r *Resolver) Update(policies []*Policy, subjects []identity.Labels) (*Resolver, error) {
	next := &Resolver{peers: r.peers, subjects: make(map[string]*subject, len(subjects))}
	var changed []*Policy
	next.policies, changed = r.intern(policies)
	position := make(map[*Policy]int, len(policies))
	for i, p := range next.policies {
		position[p] = i
	}
	shared := map[string]*EndpointPolicy{}
	for key, s := range r.subjects {
		if !slices.ContainsFunc(changed, func(p *Policy) bool { return p.Subject.Matches(s.labels) }) {
			next.subjects[key] = s
			shared[policyKey(s.selecting, position)] = s.policy
		}
	}
	wanted := make(map[string]bool, len(subjects))
	for _, labels := range subjects {
		key := labels.String()
		wanted[key] = true
		if next.subjects[key] != nil {
			continue
		}
		s := &subject{labels: labels}
		for _, p := range next.policies {
			if p.Subject.Matches(labels) {
				s.selecting = append(s.selecting, p)
			}
		}
		set := policyKey(s.selecting, position)
		if s.policy = shared[set]; s.policy == nil {
			var err error
			if s.policy, err = compileSelecting(s.selecting); err != nil {
				return nil, fmt.Errorf("resolve policies for %s: %w", endpointString(labels), err)
			}
			shared[set] = s.policy
		}
		next.subjects[key] = s
	}
	maps.DeleteFunc(next.subjects, func(key string, _ *subject) bool { return !wanted[key] })
	next.covers = next.cover(r.covers)
	return next, nil
}

// WithPeers is r with other peers. It is r where they are the same ones in the same order.
func (r *Resolver) WithPeers(peers []Peer) *Resolver {
	if slices.EqualFunc(r.peers, peers, func(a, b Peer) bool {
		return a.ID == b.ID && a.Prefix == b.Prefix && a.Labels.Equal(b.Labels) && slices.Equal(a.Names, b.Names)
	}) {
		return r
	}
	next := *r
	next.peers = slices.Clone(peers)
	next.covers = next.cover(nil)
	return &next
}

// Policy is what the policies mean for a subject; one that Update was not given is denied
// everything.
func (r *Resolver) Policy(labels identity.Labels) *EndpointPolicy {
	if s := r.subjects[labels.String()]; s != nil {
		return s.policy
	}
	return &EndpointPolicy{}
}

// Policies are the policies in the order they were given, each as the first Resolver got
// it that had it.
func (r *Resolver) Policies() []*Policy { return slices.Clone(r.policies) }

// Tables calls f for each set of peers that the same rules of a subject's policy cover, with
// EndpointPolicy.Table of any of them. Peers without an entry are left out. f keeps
// neither slice and changes neither.
func (r *Resolver) Tables(labels identity.Labels, dir flow.Direction, f func(peers []identity.ID, table []Entry)) {
	s := r.subjects[labels.String()]
	if s == nil || dir > flow.Ingress {
		return
	}
	d := &s.policy.dirs[dir]
	known := newBitset(len(r.peers))
	for i, p := range r.peers {
		if p.ID != identity.Unknown {
			known.add(i)
		}
	}
	// Sets of peers that no rule so far tells apart, each split by the next rule.
	type class struct {
		peers    bitset
		covering []int
	}
	classes := []class{{peers: known}}
	for i := range d.rules {
		covered := r.covers[d.rules[i].Rule]
		for j := range classes {
			c := &classes[j]
			in, out := c.peers.split(covered)
			switch {
			case in == nil:
			case out == nil:
				c.covering = append(c.covering, i)
			default:
				classes = append(classes, class{out, slices.Clone(c.covering)})
				c = &classes[j]
				c.peers, c.covering = in, append(c.covering, i)
			}
		}
	}
	var peers []identity.ID
	for _, c := range classes {
		d.mu.Lock()
		t := d.tableOf(c.covering)
		d.mu.Unlock()
		if len(t.listed) == 0 {
			continue
		}
		peers = peers[:0]
		for j, word := range c.peers {
			for ; word != 0; word &= word - 1 {
				peers = append(peers, r.peers[j*64+bits.TrailingZeros64(word)].ID)
			}
		}
		f(peers, t.listed)
	}
}

// cover finds out which of r's peers each rule is about, as far as known does not say.
func (r *Resolver) cover(known map[*Rule]bitset) map[*Rule]bitset {
	labels := make([]identity.Labels, len(r.peers))
	for i := range r.peers {
		labels[i] = r.peers[i].labels()
	}
	covers := map[*Rule]bitset{}
	selectors := map[string]bitset{}
	for _, p := range r.policies {
		for i := range p.Rules {
			rule := &p.Rules[i]
			set, ok := known[rule]
			if !ok {
				set = r.coveredBy(&rule.Peers, labels, selectors)
			}
			covers[rule] = set
		}
	}
	return covers
}

// coveredBy is Peers.match of every peer; selectors keeps what was found for each selector.
func (r *Resolver) coveredBy(p *Peers, labels []identity.Labels, selectors map[string]bitset) bitset {
	set := newBitset(len(r.peers))
	rest := *p
	rest.Endpoints = nil
	for i, peer := range r.peers {
		if rest.match(peer, labels[i]) {
			set.add(i)
		}
	}
	for _, s := range p.Endpoints {
		found, ok := selectors[s.String()]
		if !ok {
			found = newBitset(len(r.peers))
			for i, peer := range r.peers {
				if peer.ID != identity.Unknown && s.Matches(labels[i]) {
					found.add(i)
				}
			}
			selectors[s.String()] = found
		}
		set.or(found)
	}
	return set
}

// intern puts policies of before in the place of equal ones. What is left on either side
// has changed.
func (r *Resolver) intern(policies []*Policy) (all, changed []*Policy) {
	gone := make(map[*Policy]bool, len(r.policies))
	byName := make(map[string][]*Policy, len(r.policies))
	for _, p := range r.policies {
		gone[p] = true
		byName[p.FullName()] = append(byName[p.FullName()], p)
	}
	all = slices.Clone(policies)
	for i, p := range policies {
		before := byName[p.FullName()]
		j := slices.IndexFunc(before, func(q *Policy) bool { return gone[q] && (p == q || p.Equal(q)) })
		if j < 0 {
			changed = append(changed, p)
			continue
		}
		all[i] = before[j]
		delete(gone, before[j])
	}
	return all, slices.AppendSeq(changed, maps.Keys(gone))
}

// policyKey is the same for the same policies in whatever order.
func policyKey(policies []*Policy, position map[*Policy]int) string {
	at := make([]int, len(policies))
	for i, p := range policies {
		at[i] = position[p]
	}
	slices.Sort(at)
	var key []byte
	for _, i := range at {
		key = binary.AppendUvarint(key, uint64(i))
	}
	return string(key)
}

// bitset is a set of small numbers.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

func (b bitset) add(i int) { b[i/64] |= 1 << (i % 64) }

// split returns the numbers of b that are in c and those that are not; nil for none, and
// without a copy where one of the two is all of b.
func (b bitset) split(c bitset) (in, out bitset) {
	some, others := false, false
	for i := range b {
		some = some || b[i]&c[i] != 0
		others = others || b[i]&^c[i] != 0
	}
	switch {
	case !some:
		return nil, b
	case !others:
		return b, nil
	}
	in, out = make(bitset, len(b)), make(bitset, len(b))
	for i := range b {
		in[i], out[i] = b[i]&c[i], b[i]&^c[i]
	}
	return in, out
}

func (b bitset) or(c bitset) {
	for i := range c {
		b[i] |= c[i]
	}
}
