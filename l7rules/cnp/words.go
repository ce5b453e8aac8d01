package cnp

import "maps"

// unsupported are the fields that exist in Cilium, or that people expect, and that are
// refused: silence would mean a policy that is believed to do something it does not.
var unsupported = map[string]string{
	"l7":                "generic parsers are not supported: use http",
	"l7proto":           "generic parsers are not supported: use http",
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
	"podSelector":       "that is NetworkPolicy's: use endpointSelector",
	"namespaceSelector": "that is NetworkPolicy's: use the label k8s:io.kubernetes.pod.namespace",
	"ipBlock":           "that is NetworkPolicy's: use fromCIDRSet or toCIDRSet",
	"policyTypes":       "that is NetworkPolicy's: leave it out; enableDefaultDeny says which directions close",
	"from":              "that is NetworkPolicy's: use fromEndpoints",
	"to":                "that is NetworkPolicy's: use toEndpoints",
	"items":             "write each policy as a document of its own, with --- between",
	"order":             "order plays no part: leave it out",
}

const onlyOurs = "only in kind " + kindOurs + " of " + versionOurs

// inCilium are the fields that our own kind has and Cilium's have not.
var inCilium = map[string]string{
	"audit":           onlyOurs + "; weir run and weir agent have --audit for everything",
	"grpc":            onlyOurs + ": write http: [{method: POST, path: \"/pkg[.]Service/Method\"}]",
	"topicPrefix":     onlyOurs + ": write a rule for each topic",
	"group":           onlyOurs + ": leave it out, which allows every group",
	"groupPrefix":     onlyOurs + ": leave it out, which allows every group",
	"transactionalID": onlyOurs + ": leave it out, which allows every transactional id",
}

// inNetworkPolicy are the fields that people expect in a NetworkPolicy.
var inNetworkPolicy = map[string]string{
	"endpointSelector":  "that is " + kindCilium + "'s: use podSelector",
	"fromEndpoints":     "that is " + kindCilium + "'s: use from: [{podSelector: ...}]",
	"toEndpoints":       "that is " + kindCilium + "'s: use to: [{podSelector: ...}]",
	"fromEntities":      "that is " + kindCilium + "'s: use from: [{ipBlock: ...}], or write a " + kindCilium,
	"toEntities":        "that is " + kindCilium + "'s: use to: [{ipBlock: ...}], or write a " + kindCilium,
	"fromCIDR":          "that is " + kindCilium + "'s: use from: [{ipBlock: {cidr: ...}}]",
	"toCIDR":            "that is " + kindCilium + "'s: use to: [{ipBlock: {cidr: ...}}]",
	"fromCIDRSet":       "that is " + kindCilium + "'s: use from: [{ipBlock: {cidr: ..., except: [...]}}]",
	"toCIDRSet":         "that is " + kindCilium + "'s: use to: [{ipBlock: {cidr: ..., except: [...]}}]",
	"toFQDNs":           "a NetworkPolicy has no names: write a " + kindCilium,
	"toPorts":           "that is " + kindCilium + "'s: use ports: [{port: 80}]",
	"rules":             "a NetworkPolicy has no request rules: write a " + kindCilium,
	"http":              "a NetworkPolicy has no request rules: write a " + kindCilium,
	"ingressDeny":       "a NetworkPolicy only allows: write a " + kindCilium,
	"egressDeny":        "a NetworkPolicy only allows: write a " + kindCilium,
	"enableDefaultDeny": "that is " + kindCilium + "'s: policyTypes says which directions close",
	"audit":             onlyOurs,
	"specs":             "write each policy as a document of its own, with --- between",
	"items":             "write each policy as a document of its own, with --- between",
}

// hints are what to write instead of a field of a kind of document.
func (k *kind) hints() map[string]string {
	switch {
	case k.name == kindKubernetes:
		return inNetworkPolicy
	case k.ours():
		return unsupported
	}
	all := maps.Clone(unsupported)
	maps.Copy(all, inCilium)
	return all
}
