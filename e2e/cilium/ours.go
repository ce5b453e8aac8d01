package cilium

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/cnp"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// ours is what Weir makes of one file of policies.
type ours struct {
	policies []*l7rules.Policy
	prefixes []netip.Prefix
	compiled map[*endpoint]*l7rules.EndpointPolicy
	resolver *l7rules.Resolver // the same for all subjects and peers at once; nil if it cannot be
	tables   map[tableOf]map[identity.ID][]l7rules.Entry
}

type tableOf struct {
	subject   *endpoint
	direction flow.Direction
}

func newOurs(file string) (*ours, error) {
	o := &ours{compiled: map[*endpoint]*l7rules.EndpointPolicy{}, tables: map[tableOf]map[identity.ID][]l7rules.Entry{}}
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
	if err := sameInTable(ep.Table(c.direction, p), c, entry); err != nil {
		return verdict{}, err
	}
	if o.resolver != nil {
		if err := sameInTable(o.resolved(c), c, entry); err != nil {
			return verdict{}, fmt.Errorf("resolver: %w", err)
		}
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
func sameInTable(table []l7rules.Entry, c *connection, want l7rules.Entry) error {
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
	if got.Action != want.Action || (got.Rules == nil) != (want.Rules == nil) {
		return fmt.Errorf("the table says %v, Lookup says %v", got.Action, want.Action)
	}
	return nil
}

// resolve puts all policies into a Resolver, one half of them after the other.
func (o *ours) resolve() error {
	var subjects []identity.Labels
	var peers []l7rules.Peer
	for _, ep := range endpoints {
		subjects = append(subjects, ep.labels)
		peers = append(peers, ourPeer(peer{endpoint: ep}, nil))
	}
	peers = append(peers, l7rules.Peer{ID: identity.Host}, l7rules.Peer{ID: identity.RemoteNode})
	for _, addr := range addresses {
		// A peer of its own, as the agent makes one for every prefix.
		p := ourPeer(peer{addr: addr}, o.prefixes)
		if p.ID = addressID(addr); !p.Prefix.IsValid() {
			p.Prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		peers = append(peers, p)
	}
	resolver, err := (&l7rules.Resolver{}).Update(o.policies[:len(o.policies)/2], subjects)
	if err == nil {
		resolver, err = resolver.WithPeers(peers).Update(o.policies, subjects)
	}
	o.resolver = resolver
	return err
}

func addressID(addr netip.Addr) identity.ID {
	return identity.FirstLocal + identity.ID(slices.Index(addresses, addr))
}

// resolved is the resolver's table for a connection.
func (o *ours) resolved(c *connection) []l7rules.Entry {
	at := tableOf{c.subject, c.direction}
	if o.tables[at] == nil {
		o.tables[at] = map[identity.ID][]l7rules.Entry{}
		o.resolver.Tables(c.subject.labels, c.direction, func(peers []identity.ID, table []l7rules.Entry) {
			for _, id := range peers {
				o.tables[at][id] = table
			}
		})
	}
	if c.peer.addr.IsValid() {
		return o.tables[at][addressID(c.peer.addr)]
	}
	return o.tables[at][ourPeer(c.peer, nil).ID]
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
