//go:build linux

package agent

import (
	"cmp"
	"fmt"
	"os"
	"slices"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// Status says what the agent has in force at this moment. Version, and what
// concerns the policies' files, is the caller's to fill.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Status{
		PID:        os.Getpid(),
		Started:    a.since,
		Endpoints:  []EndpointStatus{},
		Identities: a.identityStatus(),
		Policy:     PolicyStatus{Revision: uint64(a.revision), Applied: a.applied, Documents: []PolicyDocument{}},
	}
	for name, w := range a.wanted {
		s.Endpoints = append(s.Endpoints, a.endpointStatus(name, w))
	}
	for _, e := range a.dying {
		st := a.endpointStatus(e.w.Name, e.w)
		st.ID, st.Identity, st.State, st.Reason = e.id, uint32(e.identity), Ready, "its namespace has no path any more, but processes"
		s.Endpoints = append(s.Endpoints, st)
	}
	slices.SortFunc(s.Endpoints, func(x, y EndpointStatus) int { return cmp.Compare(x.Name, y.Name) })
	for _, p := range a.policies {
		s.Policy.Documents = append(s.Policy.Documents, a.documentStatus(p))
	}
	if c, err := a.kernel.Counters(); err == nil {
		s.Counters.EventsLost = c.EventsLost
		s.Counters.MapsFull = map[string]uint64{}
		for name, n := range map[string]uint64{"flows": c.FlowsFull, "listening": c.ListeningFull} {
			if n > 0 {
				s.Counters.MapsFull[name] = n
			}
		}
	}
	return s
}

func (a *Agent) endpointStatus(name string, w Workload) EndpointStatus {
	st := EndpointStatus{Name: name, Labels: labelTexts(w.Labels), State: Waiting}
	switch {
	case w.Cgroup != "":
		st.Place = "cgroup " + w.Cgroup
	case w.PID != 0:
		st.Place = fmt.Sprintf("pid %d", w.PID)
	default:
		st.Place = "netns " + w.Netns
	}
	e := a.active[name]
	if e == nil {
		st.Reason = st.Place + " is not there"
		if reason, ok := a.refused[name]; ok {
			st.State, st.Reason = Refused, reason
		}
		return st
	}
	st.ID, st.Identity, st.State = e.id, uint32(e.identity), Ready
	if len(e.powers) > 0 {
		st.Reason = e.powers.String()
		switch {
		case e.cut:
			st.State, st.Reason = Refused, a.refused[name]
		case w.Unconfined:
			st.State = Unconfined
		}
	}
	v := e.verdicts.Load()
	for dir, side := range map[flow.Direction]*SideStatus{flow.Egress: &st.Egress, flow.Ingress: &st.Ingress} {
		side.Enforced = v.policy.Enforced(dir)
		for _, p := range a.policies {
			if p.Subject.Matches(w.Labels) && p.About(dir) {
				side.Policies = append(side.Policies, p.FullName())
			}
		}
		slices.Sort(side.Policies)
		side.Policies = slices.Compact(side.Policies)
	}
	return st
}

func (a *Agent) documentStatus(p *l7rules.Policy) PolicyDocument {
	d := PolicyDocument{Name: p.FullName(), Spec: p.Spec, Origin: p.Origin.String(), Selector: p.Subject.String(), Endpoints: []string{}}
	for _, r := range p.Rules {
		if r.Direction == flow.Ingress {
			d.Ingress++
		} else {
			d.Egress++
		}
	}
	for name, e := range a.active {
		if p.Subject.Matches(e.w.Labels) {
			d.Endpoints = append(d.Endpoints, name)
		}
	}
	slices.Sort(d.Endpoints)
	return d
}

func (a *Agent) identityStatus() []IdentityStatus {
	var list []IdentityStatus
	for _, id := range []identity.ID{identity.Host, identity.WorldIPv4, identity.WorldIPv6} {
		list = append(list, IdentityStatus{ID: uint32(id), Kind: KindReserved, Labels: labelTexts(id.Labels())})
	}
	ids, labels := a.ids.All()
	for _, id := range ids {
		st := IdentityStatus{ID: uint32(id), Kind: KindAddress, Labels: labelTexts(labels[id])}
		for name, e := range a.active {
			if e.identity == id {
				st.Kind = KindEndpoint
				st.Endpoints = append(st.Endpoints, name)
			}
		}
		slices.Sort(st.Endpoints)
		for i, d := range a.declared {
			if d == id {
				for _, p := range a.addresses[i].CIDRs {
					st.CIDRs = append(st.CIDRs, p.String())
				}
			}
		}
		list = append(list, st)
	}
	for p, id := range a.prefixes.All() {
		list = append(list, IdentityStatus{ID: uint32(id), Kind: KindPrefix, Labels: labelTexts(id.Labels()), CIDRs: []string{p.String()}})
	}
	slices.SortFunc(list, func(x, y IdentityStatus) int { return cmp.Compare(x.ID, y.ID) })
	return list
}

func labelTexts(ls identity.Labels) []string {
	texts := []string{}
	for _, l := range ls.All() {
		texts = append(texts, l.String())
	}
	return texts
}
