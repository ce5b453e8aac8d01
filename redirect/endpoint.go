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
)

// EndpointConfig names a workload: the sockets opened in a cgroup, or those of
// a network namespace.
type EndpointConfig struct {
	// ID is the endpoint's number on this machine, 1 or more.
	ID       uint32
	Identity identity.ID
	// Cgroup is the id of a cgroup v2 directory (its inode); 0 if the endpoint
	// is a network namespace. Its processes are in the caller's namespace.
	Cgroup uint64
	// Netns is the path of the endpoint's network namespace; "" is the caller's.
	Netns string
	// Audit lets through, and records, what the policy denies.
	Audit bool
}

// PolicyRow is one final verdict: what the endpoint may send to a peer on a
// range of ports. What no row covers is denied.
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

// Endpoint is a workload under policy.
type Endpoint struct {
	cfg    EndpointConfig
	d      *Datapath
	place  *place
	locals *localAddrs
	rows   []bpf.EgressPolicyKey // what it wrote into the policy map
}

// AddEndpoint puts a workload under policy: rows are what it may send, nil
// leaves the direction open, and peers are the prefixes that rows speak of.
// When it returns, every new connection of the workload is judged.
func (d *Datapath) AddEndpoint(cfg EndpointConfig, rows []PolicyRow, enforced bool, peers []PeerPrefix) (_ *Endpoint, err error) {
	if cfg.ID == 0 {
		return nil, errors.New("add endpoint: its number is 0")
	}
	if cfg.Cgroup == 1 {
		return nil, errors.New("add endpoint: cgroup 1 is the root, which holds every process that has no cgroup of its own")
	}
	if cfg.Cgroup == 0 && cfg.Netns == "" {
		return nil, errors.New("add endpoint: neither a cgroup nor a network namespace")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.endpoints[cfg.ID] != nil {
		return nil, fmt.Errorf("add endpoint %d: there is one of that number", cfg.ID)
	}
	e := &Endpoint{cfg: cfg, d: d}
	defer func() {
		if err != nil {
			err = fmt.Errorf("add endpoint %d: %w", cfg.ID, err)
			e.close()
		}
	}()
	if e.place, err = d.openPlace(cfg.Netns); err != nil {
		return nil, err
	}
	if e.locals, err = watchLocals(e); err != nil {
		return nil, err
	}
	if err := e.setPolicy(rows, peers); err != nil {
		return nil, err
	}
	flags := uint32(0)
	if enforced {
		flags |= uint32(bpf.EgressEndpointFlagsENFORCE_EGRESS)
	}
	if cfg.Audit {
		flags |= uint32(bpf.EgressEndpointFlagsAUDIT)
	}
	if d.cfg.CutWithProxy {
		flags |= uint32(bpf.EgressEndpointFlagsNEEDS_PROXY)
	}
	if err := d.objs.Endpoints.Put(cfg.ID, bpf.EgressEndpoint{Identity: uint32(cfg.Identity), Scope: cfg.ID, Flags: flags}); err != nil {
		return nil, fmt.Errorf("write endpoint: %w", err)
	}
	// Last: from here on its sockets are its own.
	if cfg.Cgroup != 0 {
		err = d.objs.ByCgroup.Put(cfg.Cgroup, cfg.ID)
	} else {
		err = d.objs.ByNetns.Put(e.place.ns.cookie, cfg.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("write endpoint's address: %w", err)
	}
	d.endpoints[cfg.ID] = e
	return e, nil
}

func (e *Endpoint) setPolicy(rows []PolicyRow, peers []PeerPrefix) error {
	for _, p := range peers {
		if err := e.d.putPeer(0, p.Prefix, p.Identity); err != nil {
			return err
		}
	}
	for _, r := range rows {
		for _, p := range portPrefixes(r.First, r.Last) {
			k := bpf.EgressPolicyKey{
				Prefixlen: uint32(80 + p.Bits),
				Endpoint:  e.cfg.ID,
				Peer:      uint32(r.Peer),
				Proto:     r.Proto,
				Port:      htons(p.Port),
			}
			if err := e.d.objs.Policy.Put(k, bpf.EgressPolicyValue{Action: uint32(kernelAction(r.Action))}); err != nil {
				return fmt.Errorf("write policy: %w", err)
			}
			e.rows = append(e.rows, k)
		}
	}
	return nil
}

func kernelAction(a l7rules.Action) bpf.EgressAction {
	switch a {
	case l7rules.ActionAllow:
		return bpf.EgressActionACTION_ALLOW
	case l7rules.ActionRedirect:
		return bpf.EgressActionACTION_REDIRECT
	}
	return bpf.EgressActionACTION_DENY
}

func peerKey(scope uint32, p netip.Prefix) bpf.EgressPeerKey {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	k := bpf.EgressPeerKey{Prefixlen: uint32(32 + bits), Scope: scope}
	k.Addr.Ip = words(p.Masked().Addr())
	return k
}

func (d *Datapath) putPeer(scope uint32, p netip.Prefix, id identity.ID) error {
	if err := d.objs.Peers.Put(peerKey(scope, p), uint32(id)); err != nil {
		return fmt.Errorf("write identity of %v: %w", p, err)
	}
	return nil
}

// Remove sets the workload free: its new connections are nobody's any more.
func (e *Endpoint) Remove() error {
	e.d.mu.Lock()
	defer e.d.mu.Unlock()
	delete(e.d.endpoints, e.cfg.ID)
	return e.close()
}

// close takes the endpoint out of the maps, first what makes it one. The caller
// holds d.mu.
func (e *Endpoint) close() error {
	if e.place == nil {
		return nil
	}
	var errs []error
	drop := func(m *ebpf.Map, k any) {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	if e.cfg.Cgroup != 0 {
		drop(e.d.objs.ByCgroup, e.cfg.Cgroup)
	} else {
		drop(e.d.objs.ByNetns, e.place.ns.cookie)
	}
	drop(e.d.objs.Endpoints, e.cfg.ID)
	if e.locals != nil {
		e.locals.close()
		for p := range e.locals.have {
			drop(e.d.objs.Peers, peerKey(e.cfg.ID, p))
		}
	}
	for _, k := range e.rows {
		drop(e.d.objs.Policy, k)
	}
	return errors.Join(append(errs, e.place.leave())...)
}
