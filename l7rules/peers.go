package l7rules

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/match"
)

// Peers says whom a rule is about. The zero value is nobody.
type Peers struct {
	Any       bool // no L3 member in the document: everybody
	Endpoints []identity.Selector
	Entities  []Entity
	CIDRs     []CIDR
	// Names are addresses outside by what this endpoint was told they are called
	// (toFQDNs): never endpoints or the host, and never what another endpoint was told.
	Names []match.Name
}

// CIDR covers the addresses outside that are in Prefix and in no prefix of Except.
// Endpoints and the host are never covered, whatever their address.
type CIDR struct {
	Prefix netip.Prefix
	Except []netip.Prefix
}

// Entity is a group of peers with a name.
type Entity string

// Entities, as Cilium names them.
const (
	EntityAll           Entity = "all"
	EntityWorld         Entity = "world" // neither an endpoint nor the machine
	EntityWorldIPv4     Entity = "world-ipv4"
	EntityWorldIPv6     Entity = "world-ipv6"
	EntityCluster       Entity = "cluster" // endpoints, declared addresses, the machine
	EntityHost          Entity = "host"
	EntityRemoteNode    Entity = "remote-node"
	EntityKubeAPIServer Entity = "kube-apiserver"
	EntityHealth        Entity = "health"
	EntityInit          Entity = "init"
	EntityIngress       Entity = "ingress"
	EntityUnmanaged     Entity = "unmanaged"
	EntityNone          Entity = "none" // nobody
)

// Entities returns every entity.
func Entities() []Entity {
	return []Entity{EntityAll, EntityWorld, EntityWorldIPv4, EntityWorldIPv6, EntityCluster, EntityHost, EntityRemoteNode,
		EntityKubeAPIServer, EntityHealth, EntityInit, EntityIngress, EntityUnmanaged, EntityNone}
}

// Inhabited reports whether anybody can belong to the entity on a machine that
// Weir runs on.
func (e Entity) Inhabited() bool {
	switch e {
	case EntityRemoteNode, EntityKubeAPIServer, EntityHealth, EntityInit, EntityIngress, EntityUnmanaged:
		return false
	}
	return true
}

// Peer is the other end of a flow, as rules see it.
//
//   - An entity: its reserved ID.
//   - An endpoint or a declared address: an ID from identity.FirstEndpoint on, and
//     its labels.
//   - An address outside: identity.World or an ID from identity.FirstLocal on, and the
//     longest prefix named by any policy that contains the address, in its family's
//     own form; the zero Prefix where none does. Names are those that the subject of the
//     policy was told for the address, and may still use.
//
// The zero Peer is unknown, and denied everything.
type Peer struct {
	ID     identity.ID
	Labels identity.Labels
	Prefix netip.Prefix
	Names  []string
}

// labels are what selectors see of a peer. Those of a prefix name its family, as those
// of the rest of the world do: a policy that names a prefix must change nothing else.
func (p Peer) labels() identity.Labels {
	switch {
	case p.ID.IsEndpoint():
		return p.Labels
	case p.ID >= identity.FirstLocal && p.Prefix.Addr().Is4():
		return identity.WorldIPv4.Labels()
	case p.ID >= identity.FirstLocal && p.Prefix.Addr().Is6():
		return identity.WorldIPv6.Labels()
	}
	return p.ID.Labels()
}

// String names a peer for a person: "host", "world 10.0.0.0/8", "app=a".
func (p Peer) String() string {
	switch {
	case p.ID.IsEndpoint():
		return endpointString(p.Labels)
	case p.ID.IsWorld() && len(p.Names) > 0:
		return "world " + strings.Join(p.Names, ",")
	case p.ID.IsWorld() && p.Prefix.IsValid():
		return "world " + p.Prefix.String()
	case p.ID >= identity.FirstLocal:
		return identity.World.String()
	}
	return p.ID.String()
}

func endpointString(ls identity.Labels) string {
	s := ""
	for _, l := range ls.All() {
		if l.Key == identity.NamespaceKey && l.Value == identity.DefaultNamespace {
			continue
		}
		if s != "" {
			s += ","
		}
		if l.Source != identity.SourceK8s {
			s += l.Source + ":"
		}
		s += l.Key + "=" + l.Value
	}
	if s == "" {
		return "an endpoint without labels"
	}
	return "endpoint " + s
}

func (e Entity) matches(p Peer) bool {
	switch e {
	case EntityAll:
		return true
	case EntityWorld:
		return p.ID.IsWorld()
	case EntityWorldIPv4:
		return p.ID == identity.WorldIPv4 || p.ID.IsWorld() && p.Prefix.IsValid() && p.Prefix.Addr().Is4()
	case EntityWorldIPv6:
		return p.ID == identity.WorldIPv6 || p.ID.IsWorld() && p.Prefix.IsValid() && p.Prefix.Addr().Is6()
	case EntityCluster:
		return p.ID.IsEndpoint() || p.ID == identity.Host || p.ID == identity.RemoteNode
	case EntityHost:
		return p.ID == identity.Host
	case EntityRemoteNode:
		return p.ID == identity.RemoteNode
	case EntityKubeAPIServer:
		return p.ID == identity.KubeAPIServer
	case EntityHealth:
		return p.ID == identity.Health
	case EntityInit:
		return p.ID == identity.Init
	case EntityIngress:
		return p.ID == identity.Ingress
	case EntityUnmanaged:
		return p.ID == identity.Unmanaged
	}
	return false
}

// covers reports whether c contains every address of prefix. A peer's prefix is the
// longest that any policy names, so that a longer one of c, or of its exceptions,
// cannot contain the peer's address.
func (c CIDR) covers(prefix netip.Prefix) bool {
	return contains(c.Prefix, prefix) && !slices.ContainsFunc(c.Except, func(e netip.Prefix) bool { return contains(e, prefix) })
}

func contains(outer, inner netip.Prefix) bool {
	return outer.IsValid() && inner.IsValid() && outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// Match reports whether a peer is among p.
func (p *Peers) Match(peer Peer) bool { return p.match(peer, peer.labels()) }

func (p *Peers) match(peer Peer, labels identity.Labels) bool {
	if peer.ID == identity.Unknown {
		return false
	}
	if p.Any {
		return true
	}
	for _, e := range p.Entities {
		if e.matches(peer) {
			return true
		}
	}
	for _, s := range p.Endpoints {
		if s.Matches(labels) {
			return true
		}
	}
	if peer.ID.IsWorld() && peer.Prefix.IsValid() {
		for _, c := range p.CIDRs {
			if c.covers(peer.Prefix) {
				return true
			}
		}
	}
	if peer.ID.IsWorld() && len(peer.Names) > 0 {
		for _, n := range p.Names {
			if slices.ContainsFunc(peer.Names, n.Match) {
				return true
			}
		}
	}
	return false
}

// PeerOf is the peer of an address outside, given the prefixes that policies name: it
// has the longest one that contains it.
func PeerOf(addr netip.Addr, prefixes []netip.Prefix) Peer {
	addr = addr.Unmap().WithZone("")
	p := Peer{ID: identity.WorldIPv6}
	if addr.Is4() {
		p.ID = identity.WorldIPv4
	}
	for _, prefix := range prefixes {
		if prefix.Contains(addr) && (!p.Prefix.IsValid() || prefix.Bits() > p.Prefix.Bits()) {
			p.Prefix = prefix
		}
	}
	return p
}
