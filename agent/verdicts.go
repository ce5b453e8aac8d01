//go:build linux

package agent

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/redirect"
	"golang.org/x/sys/unix"
)

const protoTCP = unix.IPPROTO_TCP

// verdicts are a policy as it is in force for one endpoint. They are immutable.
type verdicts struct {
	policy *l7rules.EndpointPolicy
	peers  *peers
	audit  bool
}

// peers are those that the kernel can tell apart. They are immutable; as long as none
// changes there is one such set.
type peers struct {
	byID map[identity.ID]l7rules.Peer
}

func (p *peers) equal(o *peers) bool {
	return p != nil && maps.EqualFunc(p.byID, o.byID, func(a, b l7rules.Peer) bool {
		return a.ID == b.ID && a.Prefix == b.Prefix && a.Labels.Equal(b.Labels)
	})
}

// list is the peers in the order of their identities.
func (p *peers) list() []l7rules.Peer {
	list := make([]l7rules.Peer, 0, len(p.byID))
	for _, id := range slices.Sorted(maps.Keys(p.byID)) {
		list = append(list, p.byID[id])
	}
	return list
}

// lookup is the policy's word on a peer as the kernel named it.
func (v *verdicts) lookup(dir flow.Direction, peer identity.ID, proto uint8, port uint16) l7rules.Entry {
	p, ok := v.peers.byID[peer]
	if !ok {
		return l7rules.Entry{Reason: fmt.Sprintf("identity %d is not known any more", peer)}
	}
	return v.policy.Lookup(dir, p, proto, port)
}

// kernel is what the kernel is told of them. Their rows are those that resolved has for
// labels; a policy that is not from there, such as one that denies everything, has none.
func (v *verdicts) kernel(resolved *l7rules.Resolver, labels identity.Labels) redirect.Policy {
	side := func(dir flow.Direction) redirect.Side {
		s := redirect.Side{Enforced: v.policy.HasRules(dir)}
		if !s.Enforced || resolved.Policy(labels) != v.policy {
			return s
		}
		resolved.Tables(labels, dir, func(peers []identity.ID, table []l7rules.Entry) {
			for _, id := range peers {
				s.Rows = append(s.Rows, kernelRows(id, table)...)
			}
		})
		return s
	}
	return redirect.Policy{Egress: side(flow.Egress), Ingress: side(flow.Ingress), Audit: v.audit}
}

// kernelRows is a peer's table as the kernel wants it: TCP and UDP, and only what is
// let through or looked at, since what is not there is denied.
func kernelRows(id identity.ID, table []l7rules.Entry) []redirect.PolicyRow {
	listed := map[uint8]bool{}
	for _, e := range table {
		listed[e.Proto] = true
	}
	var rows []redirect.PolicyRow
	for _, e := range table {
		if e.Action == l7rules.ActionDeny {
			continue
		}
		protos := []uint8{e.Proto}
		if e.Proto == 0 { // every one that the table does not list
			protos = slices.DeleteFunc([]uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP}, func(p uint8) bool { return listed[p] })
		}
		for _, p := range protos {
			if p == unix.IPPROTO_TCP || p == unix.IPPROTO_UDP {
				rows = append(rows, redirect.PolicyRow{Peer: id, Proto: p, First: e.First, Last: e.Last, Action: e.Action})
			}
		}
	}
	return rows
}

// worldPrefixes are in the kernel's table always: in its 16-byte form ::/0 would
// hold IPv4 too. A policy that names one replaces it.
func worldPrefixes() []redirect.PeerPrefix {
	return []redirect.PeerPrefix{
		{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Identity: identity.WorldIPv4},
		{Prefix: netip.MustParsePrefix("::/0"), Identity: identity.WorldIPv6},
	}
}

// entityPeers are there under any policy.
func entityPeers() *peers {
	p := &peers{map[identity.ID]l7rules.Peer{}}
	for _, id := range []identity.ID{identity.Host, identity.WorldIPv4, identity.WorldIPv6} {
		p.byID[id] = l7rules.Peer{ID: id}
	}
	return p
}

// judge returns what decides the requests of one connection, for one goroutine at a
// time, by the policy that is in force at that moment.
func (e *endpoint) judge(dir flow.Direction, peer identity.ID, port uint16) func(flow.Request) l7rules.Decision {
	var seen *verdicts
	var entry l7rules.Entry
	return func(req flow.Request) l7rules.Decision {
		v := e.verdicts.Load()
		if v != seen {
			seen, entry = v, v.lookup(dir, peer, protoTCP, port)
		}
		d := entry.Decision()
		if entry.Action == l7rules.ActionRedirect {
			d = entry.Rules.Decide(req)
		}
		if v.audit && d.Verdict == flow.Dropped {
			d.Verdict = flow.Audit
		}
		return d
	}
}
