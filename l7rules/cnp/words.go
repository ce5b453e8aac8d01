package cnp

import "strings"

// unsupported are the fields that exist in Cilium, or that people expect, and that are
// refused: silence would mean a policy that is believed to do something it does not.
var unsupported = map[string]string{
	"toFQDNs":           "not supported yet: name the addresses in toCIDR, or toEntities: [world]",
	"dns":               "DNS rules are not supported yet: allow the port without rules",
	"kafka":             "Kafka rules are not supported yet: allow the port without rules",
	"grpc":              "not supported yet: write http: [{method: POST, path: /pkg[.]Service/Method}]",
	"l7":                "generic parsers are not supported: use http",
	"l7proto":           "generic parsers are not supported: use http",
	"serverNames":       "not supported yet: allow the port without it, or an http rule where the traffic is not encrypted",
	"headerMatches":     "not supported yet: write headers: [\"Name: value\"]",
	"icmps":             "not supported yet: an entry without toPorts covers ICMP too",
	"terminatingTLS":    "TLS is not terminated: leave it out",
	"originatingTLS":    "TLS is not originated: leave it out",
	"listener":          "there is no Envoy to send traffic to: leave it out",
	"authentication":    "mutual authentication is not supported: leave it out",
	"nodeSelector":      "policies for nodes are not supported: use endpointSelector",
	"toServices":        "there are no Kubernetes services: use toEndpoints or toCIDR",
	"toGroups":          "groups of a cloud provider are not supported: use toCIDR",
	"fromGroups":        "groups of a cloud provider are not supported: use fromCIDR",
	"toNodes":           "not supported: use toEntities: [remote-node]",
	"fromNodes":         "not supported: use fromEntities: [remote-node]",
	"toRequires":        "not supported: put the labels into endpointSelector or toEndpoints",
	"fromRequires":      "not supported: put the labels into endpointSelector or fromEndpoints",
	"cidrGroupRef":      "CIDR groups are not supported: use cidr",
	"cidrGroupSelector": "CIDR groups are not supported: use cidr",
	"log":               "not supported: leave it out; every decision is recorded with its rule",
	"action":            "there is no action: put the entry into egressDeny or ingressDeny",
	"deny":              "there is no deny: put the entry into egressDeny or ingressDeny",
	"audit":             "not supported yet: leave it out",
	"podSelector":       "that is NetworkPolicy's: use endpointSelector",
	"namespaceSelector": "that is NetworkPolicy's: use the label k8s:io.kubernetes.pod.namespace",
	"ipBlock":           "that is NetworkPolicy's: use fromCIDRSet or toCIDRSet",
	"policyTypes":       "that is NetworkPolicy's: leave it out; enableDefaultDeny says which directions close",
	"from":              "that is NetworkPolicy's: use fromEndpoints",
	"to":                "that is NetworkPolicy's: use toEndpoints",
	"items":             "write each policy as a document of its own, with --- between",
}

// unknownField says what to write instead of a field.
func unknownField(name string, known []string) string {
	if why := unsupported[name]; why != "" {
		return why
	}
	if near := nearest(name, known); near != "" {
		return "unknown field: did you mean " + near + "?"
	}
	return "unknown field: one of " + strings.Join(known, ", ")
}

// nearest returns the word that differs least, "" if none is near: the same but for its
// case, or at most a third of its letters changed.
func nearest(word string, words []string) string {
	const longest = 64
	if len(word) > longest {
		return ""
	}
	best, found := longest, ""
	for _, w := range words {
		if d := distance(strings.ToLower(word), strings.ToLower(w)); d < best {
			best, found = d, w
		}
	}
	if best > max(1, len(found)/3) {
		return ""
	}
	return found
}

// distance counts the letters to insert, delete, change or swap with the next.
func distance(a, b string) int {
	row := func() []int { return make([]int, len(b)+1) }
	before, last, this := row(), row(), row()
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		this[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			this[j] = min(last[j]+1, this[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				this[j] = min(this[j], before[j-2]+1)
			}
		}
		before, last, this = last, this, before
	}
	return last[len(b)]
}
