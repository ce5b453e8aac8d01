// Package cnp reads policy files: CiliumNetworkPolicy and
// CiliumClusterwideNetworkPolicy of cilium.io/v2 with Cilium's meaning, NetworkPolicy of
// networking.k8s.io/v1 with Kubernetes', and Policy of weir-proxy.dev/v1alpha1, which is a
// CiliumNetworkPolicy with more in it. Nothing in a file is ignored: a field that is
// unknown, or known and not supported, is an error that says what to write instead.
package cnp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/strictyaml"
)

// Parse reads the policies of one file, any number of documents. The filename is for
// messages only. A spec of a document with specs is a policy of its own.
//
// The error, of type Errors, holds everything wrong in the file; then there are no
// policies.
func Parse(filename string, data []byte) ([]*l7rules.Policy, []Warning, error) {
	r := newReader(filename)
	docs := r.Documents(data)
	if len(docs) == 0 && r.Failed() == 0 {
		r.Errorf(pos{}, "", "no policy in this file")
	}
	var policies []*l7rules.Policy
	names := map[string]pos{}
	for _, doc := range docs {
		d, ok := r.document(doc)
		if !ok {
			continue
		}
		key := d.kind.name + " " + d.namespace + "/" + d.name
		if first, ok := names[key]; ok && d.name != "" {
			r.Errorf(d.at, "metadata.name", "%s %s is also at line %d: one name, one document", d.kind.name, d.name, first.Line)
		} else {
			names[key] = d.at
		}
		policies = append(policies, d.policies...)
	}
	if err := r.Err(); err != nil {
		return nil, r.Warnings, err
	}
	return policies, r.Warnings, nil
}

// SameNames warns of policies of different files or kinds that share a name. All of them
// take effect.
func SameNames(policies []*l7rules.Policy) []Warning {
	first := map[string]*l7rules.Policy{}
	var warnings []Warning
	for _, p := range policies {
		key := p.Namespace + "/" + p.Name
		q, ok := first[key]
		switch {
		case !ok:
			first[key] = p
		case q.Origin.File != p.Origin.File || q.Kind != p.Kind:
			warnings = append(warnings, Warning{Origin: p.Origin, Path: "metadata.name",
				Text: fmt.Sprintf("%s is also in %s: both take effect", p.FullName(), q.Origin)})
		}
	}
	return warnings
}

// Untold warns of policies with toFQDNs where no policy at all has a rule for DNS: names are
// learned from the answers to questions that such a rule lets through.
func Untold(policies []*l7rules.Policy) (warnings []Warning) {
	for _, p := range policies {
		for _, r := range p.Rules {
			if slices.ContainsFunc(r.Ports, func(pr l7rules.PortRule) bool { return pr.Protocol == l7rules.DNS && !r.Deny }) {
				return nil
			}
			if len(r.Peers.Names) > 0 {
				warnings = append(warnings, Warning{Origin: r.Origin, Path: "toFQDNs",
					Text: "nobody tells the names: allow the questions, with toPorts: [{ports: [{port: \"53\", protocol: ANY}], rules: {dns: [...]}}]"})
			}
		}
	}
	return warnings
}

// Kinds of documents and their versions.
const (
	versionCilium     = "cilium.io/v2"
	kindCilium        = "CiliumNetworkPolicy"
	kindClusterwide   = "CiliumClusterwideNetworkPolicy"
	versionOurs       = "weir-proxy.dev/v1alpha1"
	kindOurs          = "Policy"
	versionKubernetes = "networking.k8s.io/v1"
	kindKubernetes    = "NetworkPolicy"
)

type kind struct{ name, version string }

var kinds = []kind{{kindCilium, versionCilium}, {kindClusterwide, versionCilium}, {kindOurs, versionOurs}, {kindKubernetes, versionKubernetes}}

// ours reports whether documents have what Cilium lacks.
func (k *kind) ours() bool { return k.name == kindOurs }

// document is what a document's specs share.
type document struct {
	kind
	namespace, name string // namespace is "" for a clusterwide policy
	at              pos
	policies        []*l7rules.Policy
}

func (r *reader) document(n *node) (*document, bool) {
	if n.Kind != kindMap {
		r.Errorf(n.Pos, "", "a policy must be a mapping, is %s", n.Kind)
		return nil, false
	}
	// What kind of document it is comes first: the fields of another kind would all
	// be errors, none of them to the point.
	d := &document{at: n.Pos}
	if !r.kindOf(n, d) {
		return nil, false
	}
	r.Hints = d.hints()
	fields := []string{"apiVersion", "kind", "metadata", "spec", "specs", "status"}
	if d.kind.name == kindKubernetes {
		fields = slices.DeleteFunc(fields, func(f string) bool { return f == "specs" })
	}
	o, _ := r.Object(n, "", fields...)
	if o.Get("status") != nil {
		r.Warnf(o.Fields["status"].Pos, "status", "ignored: it is what a cluster said of the policy")
	}
	r.metadata(o, d)
	spec := o.Get("spec")
	if d.kind.name == kindKubernetes {
		if spec == nil {
			r.Errorf(n.Pos, "spec", "missing")
		} else {
			r.networkPolicy(spec, "spec", d)
		}
		return d, true
	}
	specs, present := r.List(o.Get("specs"), "specs")
	if spec == nil && len(specs) == 0 {
		if !present || o.Get("specs").Kind == kindList {
			r.Errorf(n.Pos, "spec", "missing: a policy needs spec or specs")
		}
		return d, true
	}
	if spec != nil {
		r.spec(spec, "spec", "", d)
	}
	for i, s := range specs {
		r.spec(s, index("specs", i), fmt.Sprintf("specs %d", i), d)
	}
	return d, true
}

// kindOf reads apiVersion and kind.
func (r *reader) kindOf(n *node, d *document) bool {
	fields := map[string]*node{}
	for _, e := range n.Entries {
		if fields[e.Key.Text] == nil {
			fields[e.Key.Text] = e.Value
		}
	}
	read := func(name string) (string, *node, bool) {
		f := fields[name]
		if f == nil || f.Kind == kindNull {
			near := ""
			for _, e := range n.Entries {
				if e.Key.Text != name && nearest(e.Key.Text, []string{name}) != "" {
					near = fmt.Sprintf("; %s at line %d is misspelt", quote(e.Key.Text), e.Key.Line)
				}
			}
			r.Errorf(n.Pos, name, "missing%s", near)
			return "", nil, false
		}
		s, ok := r.String(f, name)
		return s, f, ok
	}
	version, at, ok := read("apiVersion")
	name, kindAt, kindOK := read("kind")
	var names []string
	for _, k := range kinds {
		if k.name == name {
			d.kind = k
		}
		names = append(names, k.name)
	}
	if !ok && kindOK && d.version != "" {
		r.Last().Text += ": write " + d.version
	}
	if !ok || !kindOK {
		return false
	}
	switch near := nearest(name, names); {
	case d.kind.name != "" && d.version != version:
		r.Errorf(at.Pos, "apiVersion", "unknown version %s of %s: write %s", quote(version), name, d.version)
	case d.kind.name != "":
		return true
	case name == "List" || slices.Contains(names, strings.TrimSuffix(name, "List")):
		r.Errorf(kindAt.Pos, "kind", "lists are not supported: %s", unsupported["items"])
	case near != "":
		r.Errorf(kindAt.Pos, "kind", "unknown kind %s: did you mean %s?", quote(name), near)
	default:
		r.Errorf(kindAt.Pos, "kind", "unknown kind %s: one of %s", quote(name), strings.Join(names, ", "))
	}
	return false
}

// metadata reads a document's name and namespace. What else a cluster writes there says
// nothing about traffic.
func (r *reader) metadata(o *object, d *document) {
	m := o.Get("metadata")
	if m == nil {
		r.Errorf(o.Pos, "metadata.name", "missing: records name the policy by it")
		return
	}
	meta, ok := r.Object(m, "metadata", "name", "namespace", "labels", "annotations", "uid", "resourceVersion", "generation",
		"creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "ownerReferences", "finalizers", "selfLink", "generateName")
	if !ok {
		return
	}
	if n := meta.Get("name"); n == nil {
		r.Errorf(meta.Pos, "metadata.name", "missing: records name the policy by it")
	} else if s, ok := r.String(n, "metadata.name"); ok {
		d.at, d.name = n.Pos, s
		if !isName(s, 253, true) {
			r.Errorf(n.Pos, "metadata.name", "%s is no name: lower-case letters, digits, '-' and '.', at most 253", quote(s))
		}
	}
	n := meta.Get("namespace")
	switch {
	case n != nil && d.kind.name == kindClusterwide:
		r.Errorf(n.Pos, "metadata.namespace", "a clusterwide policy has none: leave it out, or write %s", kindCilium)
	case n != nil:
		if s, ok := r.String(n, "metadata.namespace"); ok {
			d.namespace = s
			if !isName(s, 63, false) {
				r.Errorf(n.Pos, "metadata.namespace", "%s is no namespace: lower-case letters, digits and '-', at most 63", quote(s))
			}
		}
	case d.kind.name != kindClusterwide:
		d.namespace = identity.DefaultNamespace
	}
}

// isName reports whether s is a DNS label, or subdomain, as Kubernetes wants names
// (RFC 1123).
func isName(s string, longest int, dots bool) bool {
	if s == "" || len(s) > longest {
		return false
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
				return false
			}
		}
	}
	return dots || !strings.Contains(s, ".")
}

// lists are a spec's lists of rules.
var lists = []struct {
	name      string
	direction flow.Direction
	deny      bool
}{
	{"egress", flow.Egress, false},
	{"egressDeny", flow.Egress, true},
	{"ingress", flow.Ingress, false},
	{"ingressDeny", flow.Ingress, true},
}

func (r *reader) spec(n *node, path, name string, d *document) {
	errsBefore := r.Failed()
	fields := []string{"endpointSelector", "egress", "egressDeny", "ingress", "ingressDeny", "enableDefaultDeny", "description", "labels"}
	if d.ours() {
		fields = append(fields, "audit")
	}
	o, ok := r.Object(n, path, fields...)
	if !ok {
		return
	}
	p := &l7rules.Policy{Kind: d.kind.name, Namespace: d.namespace, Name: d.name, Spec: name, Origin: r.Origin(n.Pos)}
	d.policies = append(d.policies, p)

	switch s := o.Get("endpointSelector"); {
	case s != nil:
		p.Subject = r.subject(s, join(path, "endpointSelector"), d)
	case !slices.ContainsFunc(o.Entries, func(e strictyaml.Entry) bool { return e.Key.Text == "nodeSelector" }):
		r.Errorf(o.Pos, join(path, "endpointSelector"), "missing: {} selects every endpoint%s", map[bool]string{true: " of the namespace"}[d.namespace != ""])
	}
	entries, wrong := 0, r.Failed() > errsBefore
	for _, l := range lists {
		listPath := join(path, l.name)
		before := r.Failed()
		items, _ := r.List(o.Get(l.name), listPath)
		wrong = wrong || r.Failed() > before
		for i, item := range items {
			entries++
			rule := l7rules.Rule{Direction: l.direction, Deny: l.deny, Index: i, Origin: r.Origin(item.Pos)}
			r.rule(item, index(listPath, i), &rule, d)
			p.Rules = append(p.Rules, rule)
		}
	}
	if entries == 0 && !wrong {
		r.Errorf(o.Pos, path, "no rule: at least one of egress, egressDeny, ingress, ingressDeny with an entry; egress: [{}] allows nothing")
	}
	if e := o.Get("enableDefaultDeny"); e != nil {
		r.defaultDeny(e, join(path, "enableDefaultDeny"), p)
	}
	if a := o.Get("audit"); a != nil {
		p.Audit, _ = r.Boolean(a, join(path, "audit"))
	}
	if desc := o.Get("description"); desc != nil && desc.Kind != kindScalar {
		r.Errorf(desc.Pos, join(path, "description"), "must be a string, is %s", desc.Kind)
	}
	if l := o.Get("labels"); l != nil {
		r.List(l, join(path, "labels"))
	}
}

func (r *reader) defaultDeny(n *node, path string, p *l7rules.Policy) {
	o, ok := r.Object(n, path, "egress", "ingress")
	if !ok {
		return
	}
	for dir, name := range map[flow.Direction]string{flow.Egress: "egress", flow.Ingress: "ingress"} {
		f := o.Get(name)
		if f == nil {
			continue
		}
		v, ok := r.Boolean(f, join(path, name))
		if !ok {
			continue
		}
		p.Open[dir] = !v
		if v && !slices.ContainsFunc(p.Rules, func(r l7rules.Rule) bool { return r.Direction == dir }) {
			r.Warnf(f.Pos, join(path, name), "no effect without %s rules: %s: [{}] closes the direction", name, name)
		}
	}
}
