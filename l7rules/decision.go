// Package l7rules is the policy model: what a set of policies lets one
// endpoint say to whom, for connections and for requests on them. It performs
// no I/O, reads no clock and keeps no globals.
package l7rules

import "github.com/weir-proxy/weir/l7rules/flow"

// Protocol is the application protocol that a set of request rules is written
// in. The zero value names none.
type Protocol string

// Protocols with request rules.
const (
	HTTP  Protocol = "http" // gRPC too
	DNS   Protocol = "dns"
	TLS   Protocol = "tls" // by the server name in the clear; what follows is not looked into
	Kafka Protocol = "kafka"
)

// Decision is the outcome of judging one request. The zero value denies.
type Decision struct {
	Verdict flow.Verdict
	// Policy names the rule that decided, as "namespace/name[egress 0]"; empty
	// if no rule did.
	Policy string
	// Reason says why where no rule decided: for a denial, what was missing. Of what a
	// rule lets through it says which header the rule only logs.
	Reason string
}

// Allowed reports whether the request goes on.
func (d Decision) Allowed() bool {
	return d.Verdict == flow.Forwarded || d.Verdict == flow.Audit
}
