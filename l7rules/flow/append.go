package flow

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// String is the verdict in Hubble's words.
func (v Verdict) String() string {
	switch v {
	case Forwarded:
		return "FORWARDED"
	case Audit:
		return "AUDIT"
	case Error:
		return "ERROR"
	}
	return "DROPPED"
}

// String is "egress" or "ingress".
func (d Direction) String() string {
	if d == Ingress {
		return "ingress"
	}
	return "egress"
}

// AppendCompact adds the record as one line without its end:
//
//	TIME: SRC (ID:n) -> DST (ID:n) http-request DROPPED (HTTP/1.1 GET http://host/path) REASON
//
// TIME is as time.StampMilli in the record's location. SRC and DST are
// namespace/name:port of an endpoint, else address:port. What follows the summary is
// policy=namespace/name[egress 0] where a rule decided, and then the reason where there
// is one. All bytes added are printable ASCII; it does not allocate if dst has room.
func (r *Record) AppendCompact(dst []byte) []byte {
	dst = appendStamp(dst, r.Time)
	dst = append(dst, ": "...)
	dst = r.Source.appendCompact(dst)
	dst = append(dst, " -> "...)
	dst = r.Destination.appendCompact(dst)
	dst = append(dst, ' ')
	dst = AppendEscaped(dst, r.kind())
	dst = append(dst, ' ')
	dst = append(dst, r.Verdict.String()...)
	if r.Request != nil {
		dst = append(dst, " ("...)
		dst = r.Request.AppendText(dst)
		dst = append(dst, ')')
	}
	if p := r.rule(); p != "" {
		dst = append(dst, " policy="...)
		dst = appendSentence(dst, p)
	}
	if r.Reason != "" {
		dst = append(dst, ' ')
		dst = appendSentence(dst, r.Reason)
	}
	return dst
}

// appendStamp is t.AppendFormat(dst, time.StampMilli) in a third of the time: every
// request leaves a record.
func appendStamp(dst []byte, t time.Time) []byte {
	_, month, day := t.Date()
	hour, minute, second := t.Clock()
	ms := t.Nanosecond() / 1e6
	tens := byte(' ')
	if day >= 10 {
		tens = '0' + byte(day/10)
	}
	dst = append(dst, month.String()[:3]...)
	dst = append(dst, ' ', tens, '0'+byte(day%10), ' ')
	dst = append(append2(dst, hour), ':')
	dst = append(append2(dst, minute), ':')
	dst = append(append2(dst, second), '.')
	return append2(append(dst, '0'+byte(ms/100)), ms%100)
}

// append2 adds a number below 100 in two digits.
func append2(dst []byte, n int) []byte { return append(dst, '0'+byte(n/10), '0'+byte(n%10)) }

// AppendJSON adds the record as one JSON object without white space. Time is RFC 3339 in
// UTC with nanoseconds; what is unknown is left out. It does not allocate if dst has room.
func (r *Record) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"time":"`...)
	dst = r.Time.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000000Z")
	dst = append(dst, `","verdict":"`...)
	dst = append(dst, r.Verdict.String()...)
	dst = append(dst, `","direction":"`...)
	dst = append(dst, r.Direction.String()...)
	dst = append(dst, `","type":`...)
	dst = AppendJSONString(dst, r.kind())
	dst = append(dst, `,"source":`...)
	dst = r.Source.appendJSON(dst)
	dst = append(dst, `,"destination":`...)
	dst = r.Destination.appendJSON(dst)
	if r.Request != nil {
		dst = append(dst, `,"request":`...)
		dst = r.Request.AppendJSON(dst)
	}
	if p := r.rule(); p != "" {
		dst = append(dst, `,"policy":`...)
		dst = AppendJSONString(dst, p)
	}
	if r.Reason != "" {
		dst = append(dst, `,"reason":`...)
		dst = AppendJSONString(dst, r.Reason)
	}
	return append(dst, '}')
}

func (r *Record) kind() string {
	switch {
	case r.Type != "":
		return r.Type
	case r.Request != nil:
		return r.Request.Type()
	}
	return "unknown"
}

// rule is Policy with or without its "policy=".
func (r *Record) rule() string { return strings.TrimPrefix(r.Policy, "policy=") }

func (p *Party) appendCompact(dst []byte) []byte {
	switch {
	// An endpoint has a slash in its name; entities are named by their ID.
	case strings.Contains(p.Name, "/"):
		dst = AppendEscaped(dst, p.Name)
		if p.Addr.Port() != 0 {
			dst = append(dst, ':')
			dst = strconv.AppendUint(dst, uint64(p.Addr.Port()), 10)
		}
	case p.Addr.Addr().IsValid():
		dst = appendAddrPort(dst, p.Addr)
	case p.Name != "":
		dst = AppendEscaped(dst, p.Name)
	default:
		dst = append(dst, "unknown"...)
	}
	dst = append(dst, " (ID:"...)
	dst = strconv.AppendUint(dst, uint64(p.Identity), 10)
	return append(dst, ')')
}

func appendAddrPort(dst []byte, a netip.AddrPort) []byte {
	if a.Addr().Zone() == "" {
		return a.AppendTo(dst)
	}
	// A zone is the name of an interface, and those are the workload's to choose.
	dst = append(dst, '[')
	dst = a.Addr().WithZone("").AppendTo(dst)
	dst = append(dst, '%')
	dst = AppendEscaped(dst, a.Addr().Zone())
	dst = append(dst, "]:"...)
	return strconv.AppendUint(dst, uint64(a.Port()), 10)
}

func (p *Party) appendJSON(dst []byte) []byte {
	dst = append(dst, `{"identity":`...)
	dst = strconv.AppendUint(dst, uint64(p.Identity), 10)
	if p.Name != "" {
		dst = append(dst, `,"name":`...)
		dst = AppendJSONString(dst, p.Name)
	}
	if a := p.Addr.Addr(); a.IsValid() {
		dst = append(dst, `,"address":"`...)
		dst = a.WithZone("").AppendTo(dst)
		dst = append(dst, `","port":`...)
		dst = strconv.AppendUint(dst, uint64(p.Addr.Port()), 10)
	}
	if p.PID != 0 {
		dst = append(dst, `,"pid":`...)
		dst = strconv.AppendUint(dst, uint64(p.PID), 10)
	}
	if p.Comm != "" {
		dst = append(dst, `,"comm":`...)
		dst = AppendJSONString(dst, p.Comm)
	}
	return append(dst, '}')
}
