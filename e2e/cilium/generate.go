package cilium

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
)

// generator makes random documents and connections. The same source of randomness
// gives the same ones.
type generator struct{ *rand.Rand }

// newGenerator is the one of a numbered set of policies.
func newGenerator(seed, set uint64) generator {
	return generator{rand.New(rand.NewPCG(seed, set))}
}

func pick[T any](g generator, values ...T) T { return values[g.IntN(len(values))] }

// oneIn reports true once in n.
func (g generator) oneIn(n int) bool { return g.IntN(n) == 0 }

// list has from least to most elements.
func (g generator) list(least, most int, element func() any) []any {
	all := []any{}
	for range least + g.IntN(most-least+1) {
		all = append(all, element())
	}
	return all
}

// documents are the policies of one set, some of them mutated. No two have one name.
func (g generator) documents() []document {
	var docs []document
	for i := range 1 + g.IntN(6) {
		name := fmt.Sprintf("p%d", i)
		doc := g.document(name)
		if g.oneIn(6) {
			doc = g.networkPolicy(name)
		} else if g.oneIn(4) {
			mutant := g.mutate(doc)
			if meta, ok := mutant["metadata"].(document); ok && meta["name"] == name && !hasRuleTwice(mutant) && !protocolsAstray(mutant) {
				doc = mutant
			}
		}
		docs = append(docs, doc)
	}
	return docs
}

func (g generator) document(name string) document {
	meta := document{"name": name}
	doc := document{"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": meta}
	switch g.IntN(8) {
	case 0, 1:
		doc["kind"] = "CiliumClusterwideNetworkPolicy"
	case 2:
		meta["namespace"] = "other"
	case 3:
		meta["namespace"] = "shop"
	case 4:
		meta["namespace"] = "default"
	}
	clusterwide := doc["kind"] != "CiliumNetworkPolicy"
	if !g.oneIn(5) {
		doc["spec"] = g.spec(clusterwide)
	}
	if _, ok := doc["spec"]; !ok || g.oneIn(20) {
		doc["specs"] = g.list(1, 3, func() any { return g.spec(clusterwide) })
	}
	return doc
}

func (g generator) spec(clusterwide bool) document {
	spec := document{}
	if g.oneIn(2) {
		spec["endpointSelector"] = document{} // many policies on one endpoint
	} else {
		spec["endpointSelector"] = g.selector()
	}
	for _, list := range []string{"ingress", "egress"} {
		if g.IntN(4) > 0 {
			spec[list] = g.list(0, 3, func() any { return g.rule(list, false) })
		}
		if g.oneIn(3) {
			spec[list+"Deny"] = g.list(0, 2, func() any { return g.rule(list, true) })
		}
	}
	if g.oneIn(4) {
		d := document{}
		for _, direction := range []string{"ingress", "egress"} {
			if g.oneIn(2) {
				d[direction] = pick[any](g, false, false, true, nil)
			}
		}
		spec["enableDefaultDeny"] = d
	}
	if g.oneIn(20) {
		spec["description"] = "what it is for"
	}
	return spec
}

// rule is one entry: at most one kind of peer, ports or none.
func (g generator) rule(direction string, deny bool) any {
	r := document{}
	prefix := map[string]string{"ingress": "from", "egress": "to"}[direction]
	most := 3
	if deny {
		most = 2
	}
	switch g.IntN(11) {
	case 10:
		if direction == "egress" && !deny {
			r["toFQDNs"] = g.list(1, 2, func() any { return g.nameRule() })
		}
	case 0, 1, 2, 3:
		r[prefix+"Endpoints"] = g.list(1, most, func() any { return g.selector() })
	case 4:
		r[prefix+"Entities"] = g.list(1, 2, func() any {
			return pick(g, "all", "world", "cluster", "host", "none", "remote-node", "world", "cluster", "host", "health")
		})
	case 5:
		r[prefix+"CIDR"] = g.list(1, most, func() any { return g.cidr() })
	case 6:
		r[prefix+"CIDRSet"] = g.list(1, most, func() any { return g.cidrSet() })
	case 7:
		r[prefix+pick(g, "Endpoints", "Entities", "CIDR", "CIDRSet")] = pick[any](g, nil, []any{})
	}
	if g.IntN(4) > 0 {
		r["toPorts"] = g.list(1, 2, func() any { return g.portRule(direction, deny) })
	} else if g.oneIn(12) {
		r["toPorts"] = pick[any](g, nil, []any{})
	}
	return r
}

// selector is over the labels that endpoints have, in all spellings.
func (g generator) selector() document {
	s := document{}
	if g.IntN(4) > 0 {
		m := document{}
		for range 1 + g.IntN(2)*g.IntN(2) {
			key, value := g.label()
			m[key] = value
		}
		s["matchLabels"] = m
	}
	if g.oneIn(3) {
		s["matchExpressions"] = g.list(1, 2, func() any {
			key, value := g.label()
			e := document{"key": key, "operator": pick(g, "In", "NotIn", "Exists", "DoesNotExist")}
			if e["operator"] == "In" || e["operator"] == "NotIn" {
				e["values"] = []any{value}
				if _, more := g.labelOf(key); g.oneIn(2) && more != value {
					e["values"] = []any{value, more}
				}
			}
			return e
		})
	}
	return s
}

var labelValues = map[string][]string{
	"app": {"a", "a", "a", "b", "b", "c", "d", "z"}, "tier": {"x", "y"}, "image": {"nginx"},
	"io.kubernetes.pod.namespace":         {"default", "other", "other", "shop", "nowhere"},
	"io.cilium.k8s.namespace.labels.team": {"red", "blue"},
	"io.cilium.k8s.policy.serviceaccount": {"robot"},
}

func (g generator) label() (key, value string) {
	bare := pick(g, "app", "app", "app", "app", "tier", "tier", "image", "io.kubernetes.pod.namespace", "io.kubernetes.pod.namespace",
		"io.cilium.k8s.namespace.labels.team", "io.cilium.k8s.policy.serviceaccount")
	if g.oneIn(40) {
		return "reserved:" + pick(g, "host", "world-ipv4", "world-ipv6", "remote-node", "init"), ""
	}
	source := pick(g, "", "", "", "", "k8s:", "k8s:", "any:", "container:")
	return source + bare, pick(g, labelValues[bare]...)
}

// labelOf is another value of the same key.
func (g generator) labelOf(key string) (string, string) {
	for bare, values := range labelValues {
		if len(key) >= len(bare) && key[len(key)-len(bare):] == bare {
			return key, pick(g, values...)
		}
	}
	return key, ""
}

// cidr lies in one of a few networks, with any length that can still hit an address.
func (g generator) cidr() string {
	addr := pick(g, addresses...)
	bits := pick(g, 0, 1, 7, 8, 16, 23, 24, 25, 28, 29, 30, 31, 32)
	if addr.Is6() {
		bits = pick(g, 0, 16, 32, 48, 64, 120, 127, 128)
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		panic(err)
	}
	if g.oneIn(6) {
		return addr.String() + "/" + strconv.Itoa(bits) // bits behind the length
	}
	return p.String()
}

func (g generator) cidrSet() document {
	addr := pick(g, addresses...)
	set := document{}
	inside := func(bits int) string {
		p, err := addr.Prefix(bits)
		if err != nil {
			panic(err)
		}
		return p.String()
	}
	whole := addr.BitLen()
	bits := pick(g, 0, whole/4, whole/2, whole*3/4, whole-4)
	set["cidr"] = inside(bits)
	if g.IntN(3) > 0 {
		lengths := []int{}
		set["except"] = g.list(1, 3, func() any {
			lengths = append(lengths, bits+g.IntN(whole-bits+1))
			return inside(lengths[len(lengths)-1])
		})
		slices.Sort(lengths)
		if len(slices.Compact(lengths)) < len(set["except"].([]any)) {
			set["except"] = set["except"].([]any)[:1]
		}
	}
	return set
}
