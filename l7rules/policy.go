package l7rules

import (
	"slices"
	"strconv"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// IP protocol numbers that rules can name.
const (
	ProtoTCP  uint8 = 6
	ProtoUDP  uint8 = 17
	ProtoSCTP uint8 = 132
)

// Origin is a place in a policy file. Lines and columns count from 1.
type Origin struct {
	File         string
	Line, Column int
}

// String is file:line:column, without what is unknown.
func (o Origin) String() string {
	s := o.File
	if o.Line > 0 {
		s += ":" + strconv.Itoa(o.Line)
		if o.Column > 0 {
			s += ":" + strconv.Itoa(o.Column)
		}
	}
	return s
}

// Policy is one spec of one document: whom it is about and what it lets through.
// It is not changed once it was given to Compile.
type Policy struct {
	Kind      string // of its document, "CiliumNetworkPolicy"
	Namespace string // "" for a clusterwide policy
	Name      string
	Spec      string // "" for a document's only spec, "specs 1" for one of several
	Origin    Origin

	Subject identity.Selector // the endpoints it is about, its own namespace included
	Rules   []Rule
	// Open holds the directions in which its rules take effect without closing the
	// direction for what they do not name (enableDefaultDeny: false).
	Open [2]bool
	// Closes holds the directions that it closes without a rule (policyTypes of a
	// NetworkPolicy).
	Closes [2]bool
	// Audit says that it never refuses anything: see audit.go.
	Audit bool
}

// About reports whether p has anything to say on a direction.
func (p *Policy) About(dir flow.Direction) bool {
	return dir <= flow.Ingress && (p.Closes[dir] || slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Direction == dir }))
}

// closes reports whether what no rule names is refused in a direction because of p.
func (p *Policy) closes(dir flow.Direction) bool {
	if p.Closes[dir] {
		return true
	}
	return !p.Open[dir] && slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Direction == dir })
}

// Rule is one entry of one of the four lists egress, egressDeny, ingress and
// ingressDeny. The zero value covers nothing.
type Rule struct {
	Direction flow.Direction
	Deny      bool
	Index     int // in its list
	Origin    Origin

	Peers   Peers
	AnyPort bool       // every port of every protocol
	Ports   []PortRule // where AnyPort is false
}

// PortRule is one element of toPorts.
type PortRule struct {
	Origin Origin
	Ports  []PortRange
	// Protocol is the application protocol of the request rules, "" without any:
	// then everything on these ports is covered.
	Protocol Protocol
	// These hold the request rules of Protocol, the others are empty. A request that
	// matches one of them is covered.
	HTTP  []HTTPRule
	DNS   []NameRule // names that are asked for
	TLS   []NameRule // server names of a ClientHello
	Kafka []KafkaRule
}

// PortRange is a range of ports of one IP protocol, both ends included.
type PortRange struct {
	Proto       uint8
	First, Last uint16
}

func (r PortRange) contains(proto uint8, port uint16) bool {
	return r.Proto == proto && r.First <= port && port <= r.Last
}

// String is "tcp/80" or "tcp/80-90".
func (r PortRange) String() string {
	switch {
	case r.First == 0 && r.Last == 65535:
		return "any " + protoName(r.Proto) + " port"
	case r.First == r.Last:
		return protoName(r.Proto) + "/" + strconv.Itoa(int(r.First))
	}
	return protoName(r.Proto) + "/" + strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
}

func protoName(proto uint8) string {
	switch proto {
	case ProtoTCP:
		return "tcp"
	case ProtoUDP:
		return "udp"
	case ProtoSCTP:
		return "sctp"
	}
	return "protocol " + strconv.Itoa(int(proto))
}

// HTTPRule covers the requests that match all of its fields; nil patterns match
// everything.
type HTTPRule struct {
	Origin  Origin
	Method  *match.Pattern
	Path    *match.Pattern // against the canonical path with its query
	Host    *match.Pattern
	Headers []HeaderMatch
	// Log holds headers that are no condition: a request without them is covered all
	// the same, and the reason of its record says so (mismatch: LOG).
	Log []HeaderMatch
	// GRPC is "pkg.Service/Method" where the rule was written for gRPC and became
	// Method and Path: what reasons call it.
	GRPC string
}

// NameRule covers the names that match.
type NameRule struct {
	Origin Origin
	Name   match.Name
}

// HeaderMatch asks for a header field: any number of them with any value, or, if
// Exact, exactly one with this value. In a deny rule one of several is enough: who reads
// the request next may believe that one.
type HeaderMatch struct {
	Name  string // compared without regard to case
	Value string
	Exact bool
}

// FullName is "namespace/name", or "name" for a clusterwide policy.
func (p *Policy) FullName() string {
	if p.Namespace == "" {
		return p.Name
	}
	return p.Namespace + "/" + p.Name
}

// Ref names one rule of p as records do: "namespace/name[egress 0]".
func (p *Policy) Ref(r *Rule) string {
	list := "egress"
	if r.Direction == flow.Ingress {
		list = "ingress"
	}
	if r.Deny {
		list += "Deny"
	}
	spec := ""
	if p.Spec != "" {
		spec = p.Spec + " "
	}
	return p.FullName() + "[" + spec + list + " " + strconv.Itoa(r.Index) + "]"
}
