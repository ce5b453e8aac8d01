package cilium

import (
	"regexp"
	"slices"
	"strings"

	"github.com/cilium/cilium/pkg/option"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// difference is one that docs/cilium-differences.md explains, under its name.
type difference struct {
	name string
	is   func(d *disagreement) bool
}

// stricter is a document that Cilium reads and Weir refuses with a certain error.
func stricter(name, ourError string) difference {
	re := regexp.MustCompile(`^policies\.yaml:[0-9:]+ (` + ourError + `)`)
	return difference{name, func(d *disagreement) bool {
		return d.connection == nil && d.theirError == nil && d.ourError != nil && re.MatchString(d.ourError.Error())
	}}
}

// wider is a document that Weir reads and Cilium refuses with a certain error.
func wider(name, theirError string) difference {
	re := regexp.MustCompile(theirError)
	return difference{name, func(d *disagreement) bool {
		return d.connection == nil && d.ourError == nil && d.theirError != nil && re.MatchString(d.theirError.Error())
	}}
}

// different is a connection, or a request on it, that is judged differently.
func different(name string, is func(d *disagreement) bool) difference {
	return difference{name, func(d *disagreement) bool {
		return d.connection != nil && d.ourError == nil && d.theirError == nil && is(d)
	}}
}

var differences = []difference{
	stricter("fields-refused-by-name", `[^ ]+\.(icmps|toRequires|fromRequires|authentication|listener|terminatingTLS|originatingTLS|l7proto|l7|log|nodeSelector|cidrGroupRef|cidrGroupSelector|toServices|toGroups|fromGroups|toNodes|fromNodes|headerMatches\[[0-9]+\]\.secret|headerMatches\[[0-9]+\]\.mismatch: (ADD|DELETE|REPLACE)): `),
	stricter("named-ports", `[^ ]+\.port: named ports are not supported yet`),
	stricter("protocols", `[^ ]+\.protocol: unknown protocol "(SCTP|VRRP|IGMP)"`),
	stricter("nothing-in-it", `spec: missing: a policy needs spec or specs`),
	stricter("two-kinds-of-peers", `[^ ]+\.(to|from)(Endpoints|Entities|CIDR|CIDRSet): a second L3 member`),
	stricter("one-label-twice", `[^ ]+\.matchLabels\.[^ ]*: duplicate key`),
	stricter("labels-without-value", `[^ ]+\.matchLabels\.[^ ]*: must be a string, is nothing`),
	stricter("sources-of-labels", `[^ ]+: parse selector key "[^"]*": (empty )?source`),
	stricter("equals-in-keys", `[^ ]+: parse selector key "[^"]*=[^"]*": key`),
	stricter("empty-namespace", `metadata\.namespace: "" is no namespace`),
	stricter("ranges-of-ports", `[^ ]+\.endPort: ([0-9]+ is below port [0-9]+|port "0" is every port and begins no range)`),
	stricter("spellings-of-numbers", `[^ ]+\.port: "([0-9_]+" is no port|0[0-9]+" begins with 0)|[^ ]+\.apiVersion: "0[0-9]+" is no version`),
	stricter("exceptions-wider-than-the-prefix", `[^ ]+\.except\[[0-9]+\]: [^ ]+ is not inside`),
	stricter("ipv4-in-ipv6", `[^ ]+ ::ffff:[^ ]+ is IPv4 in IPv6`),
	stricter("headers-nobody-sends", `[^ ]+\.headers\[[0-9]+\]: (".*": (a blank is missing: |blanks around the value|write ".*" for any value)|".*" is (no header name|a pseudo-header)|use host for the Host header|".*" holds a line end or a tab)|[^ ]+\.headerMatches\[[0-9]+\]\.(name: (".*" is (no header name|a pseudo-header)|use host for the Host header)|value: ".*": blanks around the value|value: ".*" holds a line end or a tab)`),
	stricter("patterns-nothing-matches", `[^ ]+\.(method|path|host): .* holds a line end or a tab`),
	stricter("hosts-that-are-no-pattern", `[^ ]+\.host: .* is no regular expression: [^r]`),
	stricter("empty-kafka-fields", `[^ ]+\.kafka\[[0-9]+\]\.[a-zA-Z]+: empty: leave it out`),
	stricter("server-names-need-tcp", `[^ ]+\.serverNames: serverNames need protocol: TCP`),
	stricter("sizes-of-patterns", `[^ ]+\.(method|path|host): .* is no regular expression: regular expression too large`),
	different("reserved-world", func(d *disagreement) bool {
		return d.connection.peer.addr.IsValid() && mentions(d.docs, "reserved:world")
	}),
	different("clusters", func(d *disagreement) bool { return mentions(d.docs, "io.cilium.k8s.policy.cluster") }),
	different("host-in-kubernetes", func(d *disagreement) bool {
		return option.Config.AlwaysAllowLocalhost() && d.connection.direction == flow.Ingress && d.connection.peer.entity == identity.Host && !d.ours.allowed
	}),
	different("dns-beside-other-rules", func(d *disagreement) bool {
		return d.ours.allowed == d.theirs.allowed && d.ours.proxied && d.theirs.proxied && slices.Equal(d.ours.requests, d.theirs.byAll)
	}),
	different("dns-over-sctp", func(d *disagreement) bool {
		return d.connection.proto == l7rules.ProtoSCTP && !d.ours.proxied && d.theirs.proxied && mentions(d.docs, "dns")
	}),
	different("rules-of-no-type", func(d *disagreement) bool {
		return slices.ContainsFunc(networkPolicies(d.docs), func(spec document) bool {
			types, _ := spec["policyTypes"].([]any)
			name := map[flow.Direction]string{flow.Ingress: "Ingress", flow.Egress: "Egress"}[d.connection.direction]
			rules, _ := spec[strings.ToLower(name)].([]any)
			return len(types) > 0 && len(rules) > 0 && !slices.Contains(types, any(name))
		})
	}),
	different("blocks-of-addresses-for-ingress", func(d *disagreement) bool {
		from := d.connection.peer.endpoint
		return d.connection.direction == flow.Ingress && from != nil && from.labels.Namespace() == d.connection.subject.labels.Namespace() &&
			!d.letsMoreThrough() && slices.ContainsFunc(networkPolicies(d.docs), func(spec document) bool {
			return mentions([]document{{"ingress": spec["ingress"]}}, "ipBlock")
		})
	}),
	different("repeated-header-fields", repeatedFields),
	wider("entities-of-one-family", `^spec[^ ]*\.(from|to)Entities\[[0-9]+\]: Unsupported value: "world-ipv[46]"`),
	wider("case-of-roles", `\.kafka\[[0-9]+\]\.role: Unsupported value: "(?i:produce|consume)"`),
	wider("names-and-patterns-in-one", `\.dns\[[0-9]+\]" must validate one and only one schema \(oneOf\)\. Found 2`),
	wider("server-names-twice", `\.serverNames\[[0-9]+\]: Duplicate value: `),
	wider("nothing-about-traffic", `^spec[^ ]*\.description: Invalid value: |ObjectMeta\.(labels|annotations) of type`),
	wider("alphabet-of-labels", `invalid label selector: \[?match[^ ]*: Invalid value: |^spec[^ ]*\.matchLabels\.[^ ]*: (Invalid value: .* should match |Too long: )`),
}

// mentions reports whether a field, or a label in a selector, of this very name is there.
func mentions(docs []document, label string) bool {
	for _, doc := range docs {
		for _, p := range places(doc) {
			if p.key == label || p.key == "key" && p.value == label {
				return true
			}
		}
	}
	return false
}

// networkPolicies are the specs of those among documents.
func networkPolicies(docs []document) []document {
	var specs []document
	for _, doc := range docs {
		if spec, ok := doc["spec"].(document); ok && doc["kind"] == "NetworkPolicy" {
			specs = append(specs, spec)
		}
	}
	return specs
}

// letsMoreThrough reports whether Weir allows something that Cilium does not.
func (d *disagreement) letsMoreThrough() bool {
	for i, ok := range d.ours.requests {
		if ok && !d.theirs.requests[i] {
			return true
		}
	}
	return d.ours.allowed && !d.theirs.allowed
}

// repeatedFields reports whether all that differs are requests that repeat a header
// field, which Weir drops.
func repeatedFields(d *disagreement) bool {
	if d.ours.allowed != d.theirs.allowed || d.ours.proxied != d.theirs.proxied {
		return false
	}
	for i, req := range d.connection.requests {
		r, ok := req.(*l7rules.HTTPRequest)
		if !ok && d.ours.requests[i] != d.theirs.requests[i] {
			return false
		}
		if d.ours.requests[i] == d.theirs.requests[i] {
			continue
		}
		names := map[string]bool{}
		repeated := false
		for _, h := range r.Header {
			name := strings.ToLower(string(h.Name))
			repeated = repeated || names[name]
			names[name] = true
		}
		if d.ours.requests[i] || !repeated {
			return false
		}
	}
	return true
}

// explanation is the name of the difference that d is an instance of, "" if it is none.
func (d *disagreement) explanation() string {
	i := slices.IndexFunc(differences, func(known difference) bool { return known.is(d) })
	if i < 0 {
		return ""
	}
	return differences[i].name
}
