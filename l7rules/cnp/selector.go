package cnp

import (
	"strings"

	"github.com/weir-proxy/weir/identity"
)

// Labels of a namespace, as Cilium carries them. A selector that names one says itself
// which namespaces it is about.
const namespaceLabelsPrefix = "io.cilium.k8s.namespace.labels."

// requirements reads matchLabels and matchExpressions.
func (r *reader) requirements(n *node, path string) ([]requirement, bool) {
	o, ok := r.Object(n, path, "matchLabels", "matchExpressions")
	if !ok {
		return nil, false
	}
	for _, e := range o.Entries {
		// The commonest mistake of all: labels straight under the selector.
		if o.Fields[e.Key.Text] == nil && len(o.Entries) == 1 && e.Value.Kind == kindScalar {
			last := r.Last()
			last.Text = "labels go into matchLabels: {" + e.Key.Text + ": " + e.Value.Text + "}"
		}
	}
	var reqs []requirement
	before := r.Failed()
	if m := o.Get("matchLabels"); m != nil {
		reqs = append(reqs, r.matchLabels(m, join(path, "matchLabels"))...)
	}
	items, _ := r.List(o.Get("matchExpressions"), join(path, "matchExpressions"))
	for i, item := range items {
		if req, ok := r.matchExpression(item, index(join(path, "matchExpressions"), i)); ok {
			reqs = append(reqs, req)
		}
	}
	return reqs, r.Failed() == before
}

// requirement is one of identity's with its place.
type requirement struct {
	identity.Requirement
	pos       pos
	path      string
	fromLabel bool // of matchLabels
}

func (r *reader) matchLabels(n *node, path string) (reqs []requirement) {
	if n.Kind != kindMap {
		r.Errorf(n.Pos, path, "must be a mapping, is %s", n.Kind)
		return nil
	}
	seen := map[string]pos{}
	for _, e := range n.Entries {
		key, ok := r.String(e.Key, path)
		if !ok {
			continue
		}
		at := join(path, key)
		source, name, err := identity.ParseSelectorKey(key)
		if err != nil {
			r.Errorf(e.Key.Pos, at, "%v", err)
			continue
		}
		full := source + ":" + name // "app" is "any:app"
		if first, ok := seen[full]; ok {
			r.Errorf(e.Key.Pos, at, "duplicate key, first at line %d", first.Line)
			continue
		}
		seen[full] = e.Key.Pos
		value, ok := r.String(e.Value, at)
		if !ok {
			continue
		}
		if err := identity.CheckValue(value); err != nil {
			r.Errorf(e.Value.Pos, at, "%v", err)
			continue
		}
		reqs = append(reqs, requirement{identity.Requirement{Source: source, Key: name, Op: identity.In, Values: []string{value}}, e.Key.Pos, at, true})
	}
	return reqs
}

func (r *reader) matchExpression(n *node, path string) (requirement, bool) {
	req := requirement{pos: n.Pos, path: path}
	o, ok := r.Object(n, path, "key", "operator", "values")
	if !ok {
		return req, false
	}
	before := r.Failed()
	if k := o.Get("key"); k == nil {
		r.Errorf(o.Pos, join(path, "key"), "missing")
	} else if s, ok := r.String(k, join(path, "key")); ok {
		var err error
		if req.Source, req.Key, err = identity.ParseSelectorKey(s); err != nil {
			r.Errorf(k.Pos, join(path, "key"), "%v", err)
		}
	}
	known := false
	if op := o.Get("operator"); op == nil {
		r.Errorf(o.Pos, join(path, "operator"), "missing: one of %s", strings.Join(identity.Operators(), ", "))
	} else if s, ok := r.String(op, join(path, "operator")); ok {
		if req.Op, known = identity.ParseOperator(s); !known {
			hint := "one of " + strings.Join(identity.Operators(), ", ")
			if near := nearest(s, identity.Operators()); near != "" {
				hint = "did you mean " + near + "?"
			}
			r.Errorf(op.Pos, join(path, "operator"), "unknown operator %s: %s", quote(s), hint)
		}
	}
	values, _ := r.List(o.Get("values"), join(path, "values"))
	for i, v := range values {
		at := index(join(path, "values"), i)
		s, ok := r.String(v, at)
		if !ok {
			continue
		}
		if err := identity.CheckValue(s); err != nil {
			r.Errorf(v.Pos, at, "%v", err)
		}
		req.Values = append(req.Values, s)
	}
	switch needs := req.Op == identity.In || req.Op == identity.NotIn; {
	case known && needs && len(values) == 0:
		r.Errorf(o.Pos, join(path, "values"), "%s needs at least one value", req.Op)
	case known && !needs && len(values) > 0:
		r.Errorf(o.Get("values").Pos, join(path, "values"), "%s takes no values", req.Op)
	}
	return req, r.Failed() == before
}

func isNamespace(q requirement) bool {
	return q.Key == identity.NamespaceKey && (q.Source == identity.SourceK8s || q.Source == identity.SourceAny)
}

func namespaceIs(ns string) identity.Requirement {
	return identity.Requirement{Source: identity.SourceK8s, Key: identity.NamespaceKey, Op: identity.In, Values: []string{ns}}
}

// subject reads an endpointSelector. A policy with a namespace is about that namespace
// whatever its selector says.
func (r *reader) subject(n *node, path string, d *document) identity.Selector {
	reqs, ok := r.requirements(n, path)
	if !ok {
		return identity.Selector{}
	}
	var all []identity.Requirement
	for _, q := range reqs {
		if d.namespace != "" && isNamespace(q) {
			// Cilium replaces the label under its full name only; another spelling stays,
			// and a policy that names another namespace by it is about nobody.
			switch {
			case q.fromLabel && q.Values[0] == d.namespace:
				continue
			case q.fromLabel && q.Source == identity.SourceK8s:
				r.Warnf(q.pos, q.path, "a policy is about its own namespace: %s stands here instead of %s", d.namespace, q.Values[0])
				continue
			}
			r.Warnf(q.pos, q.path, "a policy is about its own namespace, %s: put this into metadata.namespace", d.namespace)
		}
		all = append(all, namespaceByName(q.Requirement))
	}
	if d.namespace != "" {
		all = append(all, namespaceIs(d.namespace))
	}
	return r.selector(n, path, all)
}

// peer reads one of toEndpoints or fromEndpoints. Where it names no namespace it is about
// the policy's own, or, of a clusterwide policy, about all: everything that has one. Without
// a namespace it is nobody, so that what a selector excludes never lets the world or the
// machine in; they are selected by their reserved label alone.
func (r *reader) peer(n *node, path string, d *document) identity.Selector {
	reqs, ok := r.requirements(n, path)
	if !ok {
		return identity.Selector{}
	}
	reserved, scoped, named := false, false, false
	var all []identity.Requirement
	for _, q := range reqs {
		known := q.Source == identity.SourceK8s || q.Source == identity.SourceAny
		scopes := isNamespace(q) || known && d.namespace != "" && strings.HasPrefix(q.Key, namespaceLabelsPrefix)
		reserved = reserved || q.Source == identity.SourceReserved
		scoped = scoped || scopes
		named = named || scopes && (q.Op == identity.In || q.Op == identity.Exists)
		all = append(all, namespaceByName(q.Requirement))
	}
	switch {
	case reserved || named:
	case d.namespace != "" && !scoped:
		all = append(all, namespaceIs(d.namespace))
	default:
		all = append(all, identity.Requirement{Source: identity.SourceK8s, Key: identity.NamespaceKey, Op: identity.Exists})
	}
	return r.selector(n, path, all)
}

func (r *reader) selector(n *node, path string, reqs []identity.Requirement) identity.Selector {
	s, err := identity.NewSelector(reqs...)
	if err != nil {
		r.Errorf(n.Pos, path, "%v", err)
	}
	return s
}
