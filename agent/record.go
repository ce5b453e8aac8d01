//go:build linux

package agent

import (
	"fmt"
	"time"

	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/redirect"
	"golang.org/x/sys/unix"
)

// onEvent records what the kernel decided alone.
func (a *Agent) onEvent(ev redirect.Event) {
	a.mu.Lock()
	e := a.byID[ev.Endpoint]
	src, dst := a.parties(ev.Direction, e, ev.Peer, ev.Src, ev.Dst)
	a.mu.Unlock()
	src.PID, src.Comm = ev.PID, ev.Comm
	r := &flow.Record{
		Time:        time.Now(),
		Verdict:     flow.Dropped,
		Direction:   ev.Direction,
		Source:      src,
		Destination: dst,
		Type:        "socket",
		Reason:      ev.Reason.String(),
	}
	audited := false
	switch ev.Proto {
	case unix.IPPROTO_TCP:
		r.Type = "tcp-connect"
	case unix.IPPROTO_UDP:
		r.Type = "udp-send"
	}
	switch ev.Reason {
	case redirect.ReasonSocket:
		r.Type = "socket"
		r.Destination = flow.Party{}
		r.Reason = fmt.Sprintf("%s: type %d, protocol %d", ev.Reason, ev.Dst.Port(), ev.Proto)
	case redirect.ReasonNobodyListens:
		r.Verdict = flow.Error
	case redirect.ReasonPolicy:
		if e == nil {
			r.Reason = "the workload is not there any more"
			break
		}
		v := e.verdicts.Load()
		if v.policy.HasRules(ev.Direction) {
			entry := v.lookup(ev.Direction, ev.Peer, ev.Proto, ev.Dst.Port())
			r.Policy, r.Reason = entry.Policy, entry.Reason
			audited = entry.Audit
		} else {
			r.Reason = direction(ev.Direction) + " is open"
		}
	}
	switch {
	case ev.Audit || ev.Allowed && audited:
		r.Verdict = flow.Audit
	case ev.Allowed:
		r.Verdict = flow.Forwarded
	}
	a.cfg.Sink(r)
}

func direction(d flow.Direction) string {
	if d == flow.Ingress {
		return "ingress"
	}
	return "egress"
}
