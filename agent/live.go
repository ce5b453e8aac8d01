//go:build linux

package agent

import (
	"net/netip"
	"sync"
	"time"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/redirect"
)

// live is the open connections through the proxy. Each is reset as soon as a policy no
// longer allows it; where there are request rules they judge the next request.
type live struct {
	mu    sync.Mutex
	conns map[*liveConn]struct{}
}

// liveConn is one connection through the proxy.
type liveConn struct {
	src, dst flow.Party
	sides    []side
	reset    func()

	mu   sync.Mutex
	held bool         // nothing more of it is looked at:
	by   flow.Request // it is this request's; nil: it was judged as a whole
}

// side is an endpoint whose policy must let a connection be.
type side struct {
	e    *endpoint
	dir  flow.Direction
	peer identity.ID
	addr netip.Addr // the peer's, where it is outside
	port uint16
	seen *verdicts // that it was judged by at first
}

// track counts a connection among the live ones from before its first byte is read to its
// end.
func (l *live) track(a *Agent, c *liveConn, reset func()) (ended func()) {
	c.reset = reset
	l.mu.Lock()
	if l.conns == nil {
		l.conns = map[*liveConn]struct{}{}
	}
	l.conns[c] = struct{}{}
	l.mu.Unlock()
	for _, s := range c.sides {
		if s.e.verdicts.Load() != s.seen { // a policy came since it was judged
			a.mu.Lock()
			a.recheck(c)
			a.mu.Unlock()
			break
		}
	}
	return func() {
		l.mu.Lock()
		delete(l.conns, c)
		l.mu.Unlock()
	}
}

func (c *liveConn) hold(a *Agent, req flow.Request) {
	c.mu.Lock()
	c.held, c.by = true, req
	c.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.recheck(c)
}

// revoke closes the connections that the policies in force do not allow any more. The
// caller holds a.mu: what the kernel calls an address and what the verdicts are about
// change together.
func (a *Agent) revoke() {
	a.live.mu.Lock()
	conns := make([]*liveConn, 0, len(a.live.conns))
	for c := range a.live.conns {
		conns = append(conns, c)
	}
	a.live.mu.Unlock()
	for _, c := range conns {
		a.recheck(c)
	}
}

// recheck resets a connection through the proxy if one of its sides forbids it. The caller
// holds a.mu.
func (a *Agent) recheck(c *liveConn) {
	c.mu.Lock()
	held, by := c.held, c.by
	c.mu.Unlock()
	for _, s := range c.sides {
		v := s.e.verdicts.Load()
		if v.audit || !v.policy.HasRules(s.dir) {
			continue
		}
		entry := v.lookup(s.dir, a.kernelPeer(s.peer, s.addr), protoTCP, s.port)
		d := entry.Decision()
		if entry.Action == l7rules.ActionRedirect && held {
			d = entry.Rules.Decide(by)
		}
		if d.Allowed() {
			continue
		}
		a.recordRevoked(s.dir, c.src, c.dst, d)
		c.reset()
		return
	}
}

// kernelPeer is the identity under which the kernel knows a peer now: that of an address
// outside follows from the prefixes that policies name.
func (a *Agent) kernelPeer(peer identity.ID, addr netip.Addr) identity.ID {
	if !peer.IsWorld() || !addr.IsValid() {
		return peer
	}
	return a.kernel.Outside(addr)
}

func (a *Agent) recordRevoked(dir flow.Direction, src, dst flow.Party, d l7rules.Decision) {
	reason := "closed: the policy changed"
	if d.Reason != "" {
		reason += ": " + d.Reason
	}
	a.cfg.Sink(&flow.Record{Time: time.Now(), Verdict: flow.Dropped, Direction: dir, Source: src, Destination: dst, Type: "tcp-connect", Policy: d.Policy, Reason: reason})
}

// liveOf describes a connection that the kernel gave to the proxy.
func liveOf(r *redirect.Redirected, e *endpoint, v *verdicts, src, dst flow.Party) *liveConn {
	s := side{e: e, seen: v, dir: r.Direction, peer: r.Peer, addr: dst.Addr.Addr(), port: r.Original.Port()}
	if r.Direction == flow.Ingress {
		s.addr = src.Addr.Addr()
	}
	return &liveConn{src: src, dst: dst, sides: []side{s}}
}
