// Package flow defines the record that every decision leaves behind: who,
// whom, what, the verdict, and the rule that decided. Its words are Hubble's.
// It performs no I/O.
package flow

import (
	"net/netip"
	"time"
)

// Verdict is the outcome of a decision. The zero value denies.
type Verdict uint8

const (
	Dropped   Verdict = iota // refused by policy
	Forwarded                // let through
	Audit                    // would have been refused; let through because the policy only audits
	Error                    // refused because it could not be understood or carried
)

// Direction says on whose behalf a decision was made: the sender's (Egress) or
// the receiver's (Ingress).
type Direction uint8

const (
	Egress Direction = iota
	Ingress
)

// Party is one end of a flow.
type Party struct {
	Name     string         // "namespace/name" of an endpoint, an entity ("host", "world"), or ""
	Identity uint32         // numeric identity, 0 unknown
	Addr     netip.AddrPort // IPv4 in its 4-byte form; zero if unknown
	PID      uint32         // sender only, 0 unknown
	Comm     string         // sender only
}

// Request is what was judged, in its protocol's own terms.
//
// The append methods add to dst and return it, as the standard library's do;
// they must not retain anything.
type Request interface {
	// Type is the record's type, such as "http-request".
	Type() string
	// AppendText adds the summary of the compact form, such as
	// "HTTP/1.1 GET http://host/path". Bytes outside printable ASCII are escaped.
	AppendText(dst []byte) []byte
	// AppendJSON adds one JSON object.
	AppendJSON(dst []byte) []byte
}

// Record is one decision. A sink receives it by pointer and may use it, and the
// Request in it, only until it returns: both are reused for the next decision.
type Record struct {
	Time        time.Time
	Verdict     Verdict
	Direction   Direction
	Source      Party
	Destination Party
	Type        string  // "http-request", "tcp-connect", "udp-send", ...; Request.Type() where there is a Request
	Request     Request // nil for decisions below the application protocol
	Policy      string  // "policy=namespace/name[egress 0]": the rule that decided; "" if none did
	Reason      string  // why, where no rule decided or the request could not be read
}

// Sink takes records. It is called from many goroutines at once and must not
// block on anything but its own writer.
type Sink func(*Record)
