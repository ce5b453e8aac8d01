package config

import (
	"fmt"
	"net/netip"
	"path"
	"strings"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/strictyaml"
)

// netnsDir is where `ip netns` keeps the namespaces it has names for.
const netnsDir = "/run/netns"

// maxPID is the highest process id of any system (PID_MAX_LIMIT of Linux).
const maxPID = 1 << 22

func (r *reader) workload(n *node, at string) Workload {
	var w Workload
	o, ok := r.object(n, at, "name", "namespace", "serviceAccount", "labels", "netns", "pid", "cgroup", "unconfined")
	if !ok {
		return w
	}
	w.Name, w.Labels = r.named(o, at)
	var given []string
	for _, kind := range []string{"netns", "pid", "cgroup"} {
		n := o.Fields[kind]
		if n == nil {
			continue
		}
		if given = append(given, kind); len(given) > 1 {
			r.Errorf(n.Pos, join(at, kind), "a second place beside %s: a workload has one of netns, pid and cgroup", given[0])
		}
		if n.Kind == strictyaml.Null {
			continue
		}
		where := ""
		switch at := join(at, kind); kind {
		case "netns":
			w.Netns, ok = r.netns(n, at)
			where = "netns " + w.Netns
		case "pid":
			w.PID, ok = r.Integer(n, at, 1, maxPID)
			where = fmt.Sprintf("pid %d", w.PID)
		case "cgroup":
			w.Cgroup, ok = r.cgroup(n, at)
			where = "cgroup " + w.Cgroup
		}
		if !ok {
			continue
		}
		if other, taken := r.places[where]; taken {
			r.Errorf(n.Pos, join(at, kind), "%s is already workload %s, at line %d", where, other.workload, other.line)
		} else {
			r.places[where] = place{w.Name, n.Line}
		}
	}
	if len(given) == 0 {
		r.Errorf(o.Pos, at, "where is it? one of netns (a name of ip netns, or a path), pid and cgroup (such as /system.slice/NAME.service)")
	}
	if n := o.Get("unconfined"); n != nil {
		w.Unconfined, _ = r.Boolean(n, join(at, "unconfined"))
	}
	return w
}

// named reads what workloads and addresses have in common: the name and the labels.
func (r *reader) named(o *object, at string) (string, identity.Labels) {
	name, namespace := "", identity.DefaultNamespace
	before := r.Failed()
	if n := o.Get("namespace"); n != nil {
		if s, ok := r.String(n, join(at, "namespace")); ok {
			namespace = s
			if !isName(s, 63, false) {
				r.Errorf(n.Pos, join(at, "namespace"), "%s is no namespace: lower-case letters, digits and '-', at most 63", quote(s))
			}
		}
	}
	switch n := o.Get("name"); {
	case n == nil:
		if o.Fields["name"] == nil {
			r.Errorf(o.Pos, join(at, "name"), "missing: records name it by that")
		}
	default:
		s, ok := r.String(n, join(at, "name"))
		switch {
		case !ok:
		case strings.Count(s, "/") == 1:
			ns, rest, _ := strings.Cut(s, "/")
			r.Errorf(n.Pos, join(at, "name"), "%s: write name: %s and namespace: %s", quote(s), rest, ns)
		case !isName(s, 253, true):
			r.Errorf(n.Pos, join(at, "name"), "%s is no name: lower-case letters, digits, '-' and '.', at most 253", quote(s))
		default:
			name = s
		}
	}
	full := namespace + "/" + name
	if n := o.Get("name"); n != nil && r.Failed() == before {
		if first, ok := r.names[full]; ok {
			r.Errorf(n.Pos, join(at, "name"), "%s is also at line %d: one name, one workload or address", full, first.Line)
		} else {
			r.names[full] = n.Pos
		}
	}
	return full, r.workloadLabels(o, at, namespace)
}

func (r *reader) workloadLabels(o *object, at, namespace string) identity.Labels {
	var texts []string
	place := o.Pos
	if n := o.Get("labels"); n != nil {
		place = n.Pos
		for _, l := range r.labels(n, join(at, "labels"), "app: a") {
			texts = append(texts, l.String())
		}
	}
	if n := o.Get("serviceAccount"); n != nil {
		if s, ok := r.String(n, join(at, "serviceAccount")); ok {
			if !isName(s, 253, true) {
				r.Errorf(n.Pos, join(at, "serviceAccount"), "%s is no name: lower-case letters, digits, '-' and '.', at most 253", quote(s))
			}
			texts = append(texts, identity.SourceK8s+":"+identity.ServiceAccountKey+"="+s)
		}
	}
	before := r.Failed()
	labels, err := identity.Workload(namespace, texts...)
	if err != nil && r.Failed() == before {
		r.Errorf(place, join(at, "labels"), "%v", err)
	}
	return labels
}

// netns reads a name of `ip netns`, or an absolute path.
func (r *reader) netns(n *node, at string) (string, bool) {
	s, ok := r.String(n, at)
	switch {
	case !ok:
		return "", false
	case path.IsAbs(s) && !strings.ContainsRune(s, 0):
		return path.Clean(s), true
	case strings.Contains(s, "/"):
		r.Errorf(n.Pos, at, "%s: write an absolute path, or a name of ip netns alone", quote(s))
		return "", false
	case s == "" || s == "." || s == ".." || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		r.Errorf(n.Pos, at, "%s is neither a name of ip netns nor a path", quote(s))
		return "", false
	}
	return path.Join(netnsDir, s), true
}

// cgroup reads a path as /proc/PID/cgroup has it.
func (r *reader) cgroup(n *node, at string) (string, bool) {
	s, ok := r.String(n, at)
	if !ok {
		return "", false
	}
	clean := path.Clean("/" + s)
	below, inMount := "", false
	for _, mount := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if rest, ok := strings.CutPrefix(clean, mount); ok && !inMount && (rest == "" || rest[0] == '/') {
			below, inMount = rest, true
		}
	}
	switch {
	case strings.ContainsRune(s, 0):
		r.Errorf(n.Pos, at, "%s is no path", quote(s))
	case inMount && below != "":
		r.Errorf(n.Pos, at, "the path begins below the mounted file system: write %s", below)
	case clean == "/" || inMount:
		r.Errorf(n.Pos, at, "the root cgroup is every process: write one below it, such as /system.slice/NAME.service")
	case s != clean && s == clean[1:]:
		r.Errorf(n.Pos, at, "begins with a slash: write %s", clean)
	case strings.TrimSuffix(s, "/") != clean:
		r.Errorf(n.Pos, at, "%s: write %s", quote(s), clean)
	default:
		return clean, true
	}
	return "", false
}

func (r *reader) address(n *node, at string) Address {
	var a Address
	o, ok := r.object(n, at, "name", "namespace", "labels", "cidrs")
	if !ok {
		return a
	}
	a.Name, a.Labels = r.named(o, at)
	items := r.list(o, at, "cidrs")
	if n := o.Fields["cidrs"]; n == nil || n.Kind == strictyaml.List && len(items) == 0 {
		r.Errorf(o.Pos, join(at, "cidrs"), "missing: write cidrs: [10.0.0.1/32]")
	}
	for i, item := range items {
		if p, ok := r.prefix(item, index(join(at, "cidrs"), i)); ok {
			a.CIDRs = append(a.CIDRs, p)
		}
	}
	return a
}

func (r *reader) prefix(n *node, at string) (netip.Prefix, bool) {
	s, ok := r.String(n, at)
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			r.Errorf(n.Pos, at, "%s has no length: write %s/%d", s, s, a.BitLen())
		} else {
			r.Errorf(n.Pos, at, "%s is no prefix such as 10.0.0.0/8 or fd00::/8", quote(s))
		}
		return p, false
	}
	switch m := p.Masked(); {
	case p.Addr().Is4In6():
		r.Errorf(n.Pos, at, "%s is IPv4 in IPv6: write the IPv4 prefix", s)
	case m != p:
		r.Errorf(n.Pos, at, "%s has address bits behind its length: write %s, or %s/%d", s, m, p.Addr(), p.Addr().BitLen())
	case p.Addr().IsLoopback():
		r.Errorf(n.Pos, at, "%s is loopback, which belongs to whoever connects: policies name it by toEntities: [host]", s)
	default:
		if first, ok := r.cidrs[p]; ok {
			r.Errorf(n.Pos, at, "%s is also at line %d: which labels has it?", s, first.Line)
			return p, false
		}
		r.cidrs[p] = n.Pos
		return p, true
	}
	return p, false
}

// isName reports whether s is a DNS label, or subdomain, as Kubernetes wants names
// (RFC 1123).
func isName(s string, longest int, dots bool) bool {
	if s == "" || len(s) > longest || !dots && strings.Contains(s, ".") {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
				return false
			}
		}
	}
	return true
}
