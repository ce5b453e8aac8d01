//go:build linux

package agent

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/redirect"
)

// SetPolicies puts policies in force in place of those before. On an error those
// before are in force.
func (a *Agent) SetPolicies(list []*l7rules.Policy) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	resolved, err := a.resolve(list)
	if err != nil {
		return err
	}
	if err := a.apply(resolved); err != nil {
		return errors.Join(err, a.refresh()) // the old ones again
	}
	a.revoke()
	a.policies = list
	a.revision++
	a.applied = time.Now()
	return nil
}

// resolve works out what policies mean for every workload there is, as far as it is not
// known from the last time. The caller holds a.mu.
func (a *Agent) resolve(list []*l7rules.Policy) (*l7rules.Resolver, error) {
	var subjects []identity.Labels
	for _, e := range a.endpoints() {
		subjects = append(subjects, e.w.Labels)
	}
	return a.resolved.Update(list, subjects)
}

// endpoints are all that the kernel knows of. The caller holds a.mu.
func (a *Agent) endpoints() []*endpoint {
	list := slices.Clone(a.dying)
	for _, e := range a.active {
		list = append(list, e)
	}
	return list
}

// apply brings the kernel to what the policies say to the peers there are now. New
// peers have their rows before an address leads to them, and peers that go keep
// theirs until none does. The caller holds a.mu.
func (a *Agent) apply(resolved *l7rules.Resolver) error {
	wanted := map[netip.Prefix]bool{}
	for _, e := range a.endpoints() {
		p := resolved.Policy(e.w.Labels)
		for _, dir := range []flow.Direction{flow.Egress, flow.Ingress} {
			for _, prefix := range p.Prefixes(dir) {
				wanted[prefix.Masked()] = true
			}
		}
	}
	before := a.prefixes.All()
	list := worldPrefixes()
	for _, prefix := range slices.SortedFunc(maps.Keys(wanted), netip.Prefix.Compare) {
		id, ok := before[prefix]
		if !ok {
			var err error
			if id, err = a.prefixes.Acquire(prefix); err != nil {
				return err
			}
		}
		list = append(list, redirect.PeerPrefix{Prefix: prefix, Identity: id})
	}
	if err := a.write(resolved, a.peers()); err != nil {
		return err
	}
	if err := a.kernel.SetPrefixes(list); err != nil {
		return err
	}
	for prefix := range before {
		if !wanted[prefix] {
			a.prefixes.Release(prefix)
		}
	}
	return a.write(resolved, a.peers())
}

// peers are all that the kernel can tell apart. The caller holds a.mu.
func (a *Agent) peers() *peers {
	p := entityPeers()
	_, labels := a.ids.All()
	for id, ls := range labels {
		p.byID[id] = l7rules.Peer{ID: id, Labels: ls}
	}
	for prefix, id := range a.prefixes.All() {
		p.byID[id] = l7rules.Peer{ID: id, Prefix: prefix}
	}
	return p
}

// write puts in force what the policies say to peers, for those endpoints for which that
// is something else than before. The caller holds a.mu.
func (a *Agent) write(resolved *l7rules.Resolver, now *peers) error {
	if a.known.equal(now) {
		now = a.known
	}
	a.known, a.resolved = now, resolved.WithPeers(now.list())
	kernel := map[*l7rules.EndpointPolicy]redirect.Policy{}
	for _, e := range a.endpoints() {
		v := verdicts{policy: a.resolved.Policy(e.w.Labels), peers: now, audit: a.cfg.Audit}
		if e.cut {
			v = verdicts{policy: a.denyAll, peers: now}
		}
		if e.written != nil && v == *e.written {
			continue
		}
		a.noteChange(e, &v)
		e.verdicts.Store(&v)
		if e.kernel == nil {
			continue // about to be added
		}
		p, ok := kernel[v.policy]
		if !ok {
			p = v.kernel(a.resolved, e.w.Labels)
			kernel[v.policy] = p
		}
		e.written = nil
		if err := e.kernel.SetPolicy(p); err != nil {
			return fmt.Errorf("put policy of %s in force: %w", e.w.Name, err)
		}
		e.written = &v
	}
	return nil
}

// refresh resolves the policies anew, for other workloads or addresses than before.
// The caller holds a.mu.
func (a *Agent) refresh() error {
	resolved, err := a.resolve(a.policies)
	if err != nil {
		return err
	}
	if err := a.apply(resolved); err != nil {
		return err
	}
	a.revoke()
	return nil
}

// SetAddresses replaces the declared addresses.
func (a *Agent) SetAddresses(list []Address) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.declared
	a.declared = nil
	for _, d := range list {
		id, err := a.ids.Acquire(d.Labels)
		if err != nil {
			return err
		}
		a.declared = append(a.declared, id)
	}
	a.addresses = list
	for _, id := range old {
		a.ids.Release(id)
	}
	if err := a.refresh(); err != nil {
		return err
	}
	return a.syncAddresses()
}

func (a *Agent) onAddrs() { poke(a.moved) }

// poke leaves word in a channel of one place.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// syncAddresses tells the kernel at which addresses endpoints and declared peers
// are reached. An address of two is nobody's, and refused where rules hold. The
// caller holds a.mu.
func (a *Agent) syncAddresses() error {
	ids := map[netip.Prefix]identity.ID{}
	for i, d := range a.addresses {
		for _, p := range d.CIDRs {
			ids[p.Masked()] = a.declared[i]
		}
	}
	owned := map[netip.Prefix]identity.ID{}
	for _, e := range a.active {
		if e.kernel == nil {
			continue
		}
		for _, p := range e.kernel.Addrs() {
			if id, ok := owned[p]; ok && id != e.identity {
				owned[p] = identity.Unknown
				continue
			}
			owned[p] = e.identity
		}
	}
	for p, id := range owned {
		ids[p] = id
	}
	list := make([]redirect.PeerPrefix, 0, len(ids))
	for p, id := range ids {
		list = append(list, redirect.PeerPrefix{Prefix: p, Identity: id})
	}
	return a.kernel.SetAddresses(list)
}
