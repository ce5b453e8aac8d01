//go:build linux

package agent

import (
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/redirect"
)

// Policies that change, and endpoints that come, concern connections that are open. Those
// through the proxy are looked at by whoever changes the policies; those that the kernel
// let through alone are looked for in the namespaces, which takes longer, just after.

// noteChange has the open connections of an endpoint looked at if it is given another
// policy. Peers that come or go change nothing for connections that are open. The caller holds
// a.mu and has not stored v yet.
func (a *Agent) noteChange(e *endpoint, v *verdicts) {
	if old := e.verdicts.Load(); old != nil && old.policy == v.policy && old.audit == v.audit {
		return
	}
	if a.changed == nil {
		a.changed = map[uint32]bool{}
	}
	a.changed[e.id] = true
	poke(a.recheckDirect)
}

// revokeDirect closes the connections past the proxy that policies do not allow any more,
// of endpoints whose policies changed. Who connects again is judged anew.
func (a *Agent) revokeDirect() {
	a.mu.Lock()
	changed := a.changed
	a.changed = nil
	a.mu.Unlock()
	if len(changed) == 0 {
		return
	}
	list, err := a.kernel.Direct(func(id uint32) bool { return changed[id] })
	if err != nil {
		a.log.Warn("look for connections that are not allowed any more", "error", err)
	}
	for _, c := range list {
		src, dst, d := a.judgeDirect(c)
		if d.Allowed() {
			continue
		}
		if err := c.Destroy(); err != nil {
			a.log.Debug("close connection that is not allowed any more", "error", err) // it ended meanwhile
			continue
		}
		a.recordRevoked(c.Direction, src, dst, d)
	}
}

// judgeDirect is the verdict on an open connection, by the policies in force now.
func (a *Agent) judgeDirect(c *redirect.Direct) (src, dst flow.Party, d l7rules.Decision) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.byID[c.Endpoint]
	if e == nil {
		return src, dst, l7rules.Decision{Verdict: flow.Forwarded} // nobody's any more
	}
	other := c.Dst.Addr()
	if c.Direction == flow.Ingress {
		other = c.Src.Addr()
	}
	c.Peer = a.kernelPeer(c.Peer, other)
	src, dst = a.parties(c.Direction, e, c.Peer, c.Src, c.Dst)
	src.PID, src.Comm = c.PID, c.Comm
	return src, dst, directDecision(e.verdicts.Load(), c)
}

// directDecision is the verdict on a connection whose requests nobody sees.
func directDecision(v *verdicts, c *redirect.Direct) l7rules.Decision {
	if v.audit || !v.policy.HasRules(c.Direction) {
		return l7rules.Decision{Verdict: flow.Forwarded}
	}
	entry := v.lookup(c.Direction, c.Peer, protoTCP, c.Dst.Port())
	if entry.Action == l7rules.ActionRedirect && !entry.Rules.NeverRefuses() {
		return l7rules.Decision{Reason: "its requests are to be judged"}
	}
	return entry.Decision()
}
