//go:build linux

package agent

import (
	"fmt"
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
	peers  map[identity.ID]l7rules.Peer // those that the kernel can tell apart
	audit  bool
}

// lookup is the policy's word on a peer as the kernel named it.
func (v *verdicts) lookup(dir flow.Direction, peer identity.ID, proto uint8, port uint16) l7rules.Entry {
	p, ok := v.peers[peer]
	if !ok {
		return l7rules.Entry{Reason: fmt.Sprintf("identity %d is not known any more", peer)}
	}
	return v.policy.Lookup(dir, p, proto, port)
}

// kernel is what the kernel is told of them.
func (v *verdicts) kernel() redirect.Policy {
	return redirect.Policy{Egress: v.side(flow.Egress), Ingress: v.side(flow.Ingress), Audit: v.audit}
}

func (v *verdicts) side(dir flow.Direction) redirect.Side {
	s := redirect.Side{Enforced: v.policy.HasRules(dir)}
	if !s.Enforced {
		return s
	}
	for id, peer := range v.peers {
		s.Rows = append(s.Rows, kernelRows(id, v.policy.Table(dir, peer))...)
	}
	return s
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
func entityPeers() map[identity.ID]l7rules.Peer {
	peers := map[identity.ID]l7rules.Peer{}
	for _, id := range []identity.ID{identity.Host, identity.WorldIPv4, identity.WorldIPv6} {
		peers[id] = l7rules.Peer{ID: id}
	}
	return peers
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
