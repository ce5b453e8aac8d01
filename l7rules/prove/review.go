package prove

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// Finding is something in policies that means what it says and is perhaps not meant.
type Finding struct {
	Origin l7rules.Origin
	Path   string // the field, "spec.ingress[0]"
	Text   string
}

// reviewShare of the budget of an answer is for what nobody asked for.
const reviewShare = 10

// Review looks for what policies say and perhaps do not mean: paths and names that match
// less than they seem to, rules that change nothing, and, where known says who there is,
// selectors that select nobody. What would take too much is passed over.
func Review(policies []*l7rules.Policy, known Known) []Finding {
	v := &review{bench: newBench()}
	v.budget /= reviewShare
	for _, p := range policies {
		patterns := map[string]bool{}
		for i := range p.Rules {
			r := &p.Rules[i]
			for j := range r.Ports {
				v.exactPaths(p, r, j)
				v.covered(p, r, j)
			}
			v.wildcards(p, r, patterns)
		}
		if len(known.Workloads) > 0 {
			v.selectors(p, known)
		}
	}
	v.useless(policies, known)
	return v.findings
}

type review struct {
	*bench
	findings []Finding
}

func (v *review) add(origin l7rules.Origin, path, format string, args ...any) {
	v.findings = append(v.findings, Finding{origin, path, fmt.Sprintf(format, args...)})
}

// field is the path of a rule in its document.
func field(p *l7rules.Policy, r *l7rules.Rule) string {
	spec := "spec"
	if list, i, ok := strings.Cut(p.Spec, " "); ok {
		spec = list + "[" + i + "]"
	}
	if r == nil {
		return spec
	}
	list := r.Direction.String()
	if r.Deny {
		list += "Deny"
	}
	return fmt.Sprintf("%s.%s[%d]", spec, list, r.Index)
}

// exactPaths finds paths that read like everything below them and are one path alone. Who
// has a rule for what is below beside it knows, and who names a file means it.
func (v *review) exactPaths(p *l7rules.Policy, r *l7rules.Rule, port int) {
	list := r.Ports[port].HTTP
	for k := range list {
		h := &list[k]
		if h.Path == nil || h.GRPC != "" {
			continue
		}
		all, ok := h.Path.Literals()
		if !ok || len(all) != 1 || !strings.HasPrefix(all[0], "/") || strings.HasSuffix(all[0], "/") || strings.ContainsAny(all[0][strings.LastIndexByte(all[0], '/'):], ".?") {
			continue
		}
		path := all[0]
		if slices.ContainsFunc(list, func(o l7rules.HTTPRule) bool {
			return o.Path == nil || o.Path.Match([]byte(path+"/x")) || o.Path.Match([]byte(path+"?x")) || o.Path.Match([]byte(path+"/"))
		}) {
			continue
		}
		v.add(h.Origin, fmt.Sprintf("%s.toPorts[%d].rules.http[%d].path", field(p, r), port, k),
			"%s is that path alone, without %s/ and %s?x: perhaps %s([/?].*)?", quote(path), path, path, h.Path)
	}
}

// wildcards finds patterns for what is below a name where nothing beside them is for the
// name itself. One pattern is said once for a policy.
func (v *review) wildcards(p *l7rules.Policy, r *l7rules.Rule, seen map[string]bool) {
	check := func(origin l7rules.Origin, path string, n match.Name, beside func(string) bool) {
		key := n.Key()
		base, below := strings.CutPrefix(strings.TrimLeft(key, "*"), ".")
		if !below || key[0] != '*' || strings.Contains(base, "*") || seen[key] || beside(base) {
			return
		}
		seen[key] = true
		v.add(origin, path, "%s is for what is below %s, not for %s itself", quote(n.String()), base, base)
	}
	for _, n := range r.Peers.Names {
		check(r.Origin, field(p, r)+".toFQDNs", n, func(name string) bool {
			return slices.ContainsFunc(r.Peers.Names, func(o match.Name) bool { return o.Match(name) })
		})
	}
	for j := range r.Ports {
		at := fmt.Sprintf("%s.toPorts[%d]", field(p, r), j)
		for _, l := range []struct {
			field string
			names []l7rules.NameRule
		}{{"rules.dns", r.Ports[j].DNS}, {"serverNames", r.Ports[j].TLS}} {
			for _, n := range l.names {
				check(n.Origin, at+"."+l.field, n.Name, func(name string) bool {
					return slices.ContainsFunc(l.names, func(o l7rules.NameRule) bool { return o.Name.Match(name) })
				})
			}
		}
		v.wildHosts(at, r.Ports[j].HTTP)
	}
}

// wildHosts does the same for hosts of requests, which are regular expressions.
func (v *review) wildHosts(at string, list []l7rules.HTTPRule) {
	for k := range list {
		h := &list[k]
		if h.Host == nil {
			continue
		}
		rest, ok := strings.CutPrefix(h.Host.String(), `.*\.`)
		base := strings.ReplaceAll(rest, `\.`, ".")
		if !ok || !match.IsName(base) || slices.ContainsFunc(list, func(o l7rules.HTTPRule) bool { return o.Host == nil || o.Host.Match([]byte(base)) }) {
			continue
		}
		v.add(h.Origin, fmt.Sprintf("%s.rules.http[%d].host", at, k), "%s is for what is below %s, not for %s itself", quote(h.Host.String()), base, base)
	}
}

// covered finds request rules that the others beside them cover together.
func (v *review) covered(p *l7rules.Policy, r *l7rules.Rule, port int) {
	list := r.Ports[port].HTTP
	rules := make([]*l7rules.HTTPRule, len(list))
	for k := range list {
		rules[k] = &list[k]
	}
	requests, err := v.httpRequests(rules)
	if err != nil {
		return
	}
	// The last of those that cover each other goes first.
	gone := map[int]bool{}
	for k := len(rules) - 1; k >= 0; k-- {
		matters, any := false, false
		for _, req := range requests {
			q := req.(*l7rules.HTTPRequest)
			others := false
			for o := range rules {
				others = others || o != k && !gone[o] && coversHTTP(rules[o], q, r.Deny)
			}
			any = any || coversHTTP(rules[k], q, r.Deny)
			matters = matters || coversHTTP(rules[k], q, r.Deny) && !others
		}
		switch at := fmt.Sprintf("%s.toPorts[%d].rules.http[%d]", field(p, r), port, k); {
		case !any:
			gone[k] = true
			v.add(rules[k].Origin, at, "no request matches all of it")
		case !matters:
			gone[k] = true
			v.add(rules[k].Origin, at, "the rules beside it cover every request that it covers: leave it out")
		}
	}
}

// selectors finds those that select nobody who is known.
func (v *review) selectors(p *l7rules.Policy, known Known) {
	selects := func(s identity.Selector, addresses bool) bool {
		return slices.ContainsFunc(known.Workloads, func(w End) bool { return s.Matches(w.Labels) }) ||
			addresses && slices.ContainsFunc(known.Addresses, func(a DeclaredAddress) bool { return s.Matches(a.Labels) })
	}
	if !selects(p.Subject, false) {
		v.add(p.Origin, field(p, nil)+".endpointSelector", "%s selects no workload of the configuration", p.Subject)
		return
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		name := "toEndpoints"
		if r.Direction == flow.Ingress {
			name = "fromEndpoints"
		}
		for j, s := range r.Peers.Endpoints {
			if !selects(s, r.Direction == flow.Egress) {
				v.add(r.Origin, fmt.Sprintf("%s.%s[%d]", field(p, r), name, j), "%s selects nobody of the configuration", s)
			}
		}
	}
}
