package cilium

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/cnp"
)

// ours is what Weir makes of one file of policies.
type ours struct {
	policies []*l7rules.Policy
	prefixes []netip.Prefix
	compiled map[*endpoint]*l7rules.EndpointPolicy
}

func newOurs(file string) (*ours, error) {
	o := &ours{compiled: map[*endpoint]*l7rules.EndpointPolicy{}}
	if file == "" {
		return o, nil // no file at all: an empty one is an error
	}
	var err error
	if o.policies, _, err = cnp.Parse("policies.yaml", []byte(file)); err != nil {
		return nil, err
	}
	for _, p := range o.policies {
		for _, r := range p.Rules {
			for _, c := range r.Peers.CIDRs {
				o.prefixes = append(append(o.prefixes, c.Prefix), c.Except...)
			}
		}
	}
	slices.SortFunc(o.prefixes, netip.Prefix.Compare)
	o.prefixes = slices.Compact(o.prefixes)
	return o, nil
}

func (o *ours) policy(subject *endpoint) (*l7rules.EndpointPolicy, error) {
	ep, ok := o.compiled[subject]
	if !ok {
		var err error
		if ep, err = l7rules.Compile(o.policies, subject.labels); err != nil {
			return nil, err
		}
		o.compiled[subject] = ep
	}
	return ep, nil
}

// judge asks for the verdict in every way there is, and fails if they do not say the
// same.
func (o *ours) judge(c *connection) (verdict, error) {
	ep, err := o.policy(c.subject)
	if err != nil {
		return verdict{}, err
	}
	p := ourPeer(c.peer, o.prefixes)
	entry := ep.Lookup(c.direction, p, c.proto, c.port)
	if err := sameInTable(ep, c, p, entry); err != nil {
		return verdict{}, err
	}
	// Prefixes of other endpoints' policies must make no difference, and neither must
	// it that a prefix has a number of its own, as in the agent.
	other := ourPeer(c.peer, ep.Prefixes(c.direction))
	if other.Prefix.IsValid() {
		other.ID = identity.FirstLocal
	}
	if own := ep.Lookup(c.direction, other, c.proto, c.port); own.Action != entry.Action {
		return verdict{}, fmt.Errorf("%v with the endpoint's own prefixes, %v with all of them", own.Action, entry.Action)
	}
	v := verdict{allowed: entry.Action != l7rules.ActionDeny, proxied: entry.Action == l7rules.ActionRedirect, why: entry.Policy + entry.Reason}
	for _, r := range c.requests {
		ok := v.allowed
		if v.proxied {
			d := entry.Rules.Decide(r)
			ok = d.Allowed()
			v.why += "; " + d.Policy + d.Reason
		}
		v.requests = append(v.requests, ok)
	}
	return v, nil
}

// sameInTable reports an error where the table, which goes into the kernel, says
// something else than Lookup.
func sameInTable(ep *l7rules.EndpointPolicy, c *connection, p l7rules.Peer, want l7rules.Entry) error {
	table := ep.Table(c.direction, p)
	proto := c.proto
	if !slices.ContainsFunc(table, func(e l7rules.Entry) bool { return e.Proto == proto }) {
		proto = 0 // what holds for every protocol that the table does not list
	}
	var got l7rules.Entry // what the table leaves out is denied
	for _, e := range table {
		if e.Proto == proto && e.First <= c.port && c.port <= e.Last {
			got = e
		}
	}
	if got.Action != want.Action || got.Rules != want.Rules {
		return fmt.Errorf("the table says %v, Lookup says %v", got.Action, want.Action)
	}
	return nil
}

func ourPeer(p peer, prefixes []netip.Prefix) l7rules.Peer {
	switch {
	case p.endpoint != nil:
		return l7rules.Peer{ID: p.endpoint.id, Labels: p.endpoint.labels}
	case p.addr.IsValid():
		outside := l7rules.PeerOf(p.addr, prefixes)
		outside.Names = names[p.addr]
		return outside
	}
	return l7rules.Peer{ID: p.entity}
}
