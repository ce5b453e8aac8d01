//go:build linux

package redirect

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/weir-proxy/weir/bpf"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// Policy is what an endpoint may send and receive.
type Policy struct {
	Egress, Ingress Side
	// Audit lets through, and records, what the policy denies.
	Audit bool
}

// Side is one direction of a policy. The zero value leaves it open.
type Side struct {
	Enforced bool
	// Rows are the verdicts of an enforced side; what none covers is denied. The
	// port ranges of one peer and protocol do not overlap.
	Rows []PolicyRow
}

// PolicyRow is one final verdict on what the endpoint and a peer say to each other
// on a range of the receiver's ports.
type PolicyRow struct {
	Peer        identity.ID
	Proto       uint8 // IPPROTO_TCP, IPPROTO_UDP
	First, Last uint16
	Action      l7rules.Action
}

// PeerPrefix gives an identity to the addresses of a prefix.
type PeerPrefix struct {
	Prefix   netip.Prefix
	Identity identity.ID
}

// SetPolicy puts a policy in force in place of the one before. At any moment each
// port's verdict is the old or the new one. Connections that are open are not
// judged again by the kernel.
func (e *Endpoint) SetPolicy(p Policy) error {
	e.d.mu.Lock()
	defer e.d.mu.Unlock()
	return e.setPolicy(p)
}

// SetIdentity changes who the endpoint is to others.
func (e *Endpoint) SetIdentity(id identity.ID) error {
	e.d.mu.Lock()
	defer e.d.mu.Unlock()
	if e.cfg.Identity == id {
		return nil
	}
	e.cfg.Identity = id
	return e.write(e.written)
}

func (e *Endpoint) setPolicy(p Policy) error {
	rows := map[bpf.WeirPolicyKey]bpf.WeirAction{}
	for dir, side := range map[flow.Direction]Side{flow.Egress: p.Egress, flow.Ingress: p.Ingress} {
		if !side.Enforced {
			continue
		}
		for _, r := range side.Rows {
			for _, pp := range portPrefixes(r.First, r.Last) {
				rows[bpf.WeirPolicyKey{
					Prefixlen: uint32(80 + pp.Bits),
					Endpoint:  e.cfg.ID,
					Peer:      uint32(r.Peer),
					Direction: uint8(dir),
					Proto:     r.Proto,
					Port:      htons(pp.Port),
				}] = kernelAction(r.Action)
			}
		}
	}
	if p.Ingress.Enforced {
		if err := e.place.judgeIngress(); err != nil {
			return err
		}
	}
	flags := e.flags(p)
	// A side that opens does so before its rows go, one that closes after its rows
	// came: nothing in between denies what both policies allow.
	if err := e.write(e.written & flags); err != nil {
		return err
	}
	// New rows first: none of them hides an old one of another port, and an old one
	// that goes leaves a new one of the same port behind, if there is to be any.
	for k, a := range rows {
		if old, ok := e.rows[k]; ok && old == a {
			continue
		}
		if err := e.d.objs.Policy.Put(k, bpf.WeirPolicyValue{Action: uint32(a)}); err != nil {
			return fmt.Errorf("write policy: %w", err)
		}
		e.rows[k] = a
	}
	for k := range e.rows {
		if _, ok := rows[k]; ok {
			continue
		}
		if err := e.d.objs.Policy.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove policy: %w", err)
		}
		delete(e.rows, k)
	}
	return e.write(flags)
}

func (e *Endpoint) flags(p Policy) bpf.WeirEndpointFlags {
	var f bpf.WeirEndpointFlags
	if p.Egress.Enforced {
		f |= bpf.WeirEndpointFlagsENFORCE_EGRESS
	}
	if p.Ingress.Enforced {
		f |= bpf.WeirEndpointFlagsENFORCE_INGRESS
	}
	if p.Audit {
		f |= bpf.WeirEndpointFlagsAUDIT
	}
	if e.d.cfg.CutWithProxy {
		f |= bpf.WeirEndpointFlagsNEEDS_PROXY
	}
	return f
}

// write tells the kernel the endpoint's properties.
func (e *Endpoint) write(flags bpf.WeirEndpointFlags) error {
	v := bpf.WeirEndpoint{
		Netns:    e.place.ns.cookie,
		Identity: uint32(e.cfg.Identity),
		Scope:    e.scope(),
		Flags:    uint32(flags),
	}
	if err := e.d.objs.Endpoints.Put(e.cfg.ID, v); err != nil {
		return fmt.Errorf("write endpoint: %w", err)
	}
	e.written = flags
	return nil
}

// scope is the endpoint's own in the kernel's table of addresses, apart from the
// common ones.
func (e *Endpoint) scope() uint32 { return e.cfg.ID | 1<<31 }

func kernelAction(a l7rules.Action) bpf.WeirAction {
	switch a {
	case l7rules.ActionAllow:
		return bpf.WeirActionACTION_ALLOW
	case l7rules.ActionRedirect:
		return bpf.WeirActionACTION_REDIRECT
	}
	return bpf.WeirActionACTION_DENY
}

// The scopes that all endpoints share, as types.h numbers them.
const (
	scopeCIDR      = 0
	scopeAddresses = 1
)

// SetPrefixes replaces the prefixes that policies name, for both directions.
func (d *Datapath) SetPrefixes(list []PeerPrefix) error { return d.setPeers(scopeCIDR, list) }

// SetAddresses replaces the addresses of endpoints and declared ones: identities of
// destinations, never of a sender, who can show any address.
func (d *Datapath) SetAddresses(list []PeerPrefix) error { return d.setPeers(scopeAddresses, list) }

func (d *Datapath) setPeers(scope uint32, list []PeerPrefix) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	have := d.peers[scope]
	want := make(map[netip.Prefix]identity.ID, len(list))
	for _, p := range list {
		want[p.Prefix.Masked()] = p.Identity
	}
	for p, id := range want {
		if old, ok := have[p]; ok && old == id {
			continue
		}
		if err := d.putPeer(scope, p, id); err != nil {
			return err
		}
		have[p] = id
	}
	for p := range have {
		if _, ok := want[p]; ok {
			continue
		}
		if err := d.dropPeer(scope, p); err != nil {
			return err
		}
		delete(have, p)
	}
	return nil
}

func peerKey(scope uint32, p netip.Prefix) bpf.WeirPeerKey {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	k := bpf.WeirPeerKey{Prefixlen: uint32(32 + bits), Scope: scope}
	k.Addr.Ip = words(p.Masked().Addr())
	return k
}

func (d *Datapath) putPeer(scope uint32, p netip.Prefix, id identity.ID) error {
	if err := d.objs.Peers.Put(peerKey(scope, p), uint32(id)); err != nil {
		return fmt.Errorf("write identity of %v: %w", p, err)
	}
	return nil
}

func (d *Datapath) dropPeer(scope uint32, p netip.Prefix) error {
	if err := d.objs.Peers.Delete(peerKey(scope, p)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove identity of %v: %w", p, err)
	}
	return nil
}
