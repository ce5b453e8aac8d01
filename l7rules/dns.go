package l7rules

import (
	"strconv"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// DNSQuery is one question to a name server as rules see it.
type DNSQuery struct {
	// Name is in presentation form, with or without the final dot, in any case. Bytes of
	// a label that are no letter, digit, '-' or '_' are escaped (RFC 1035 section 5.1):
	// a dot within a label must not look like one between two.
	Name  string
	QType uint16 // RFC 1035 section 3.2.2
}

var _ flow.Request = (*DNSQuery)(nil)

// Type implements flow.Request.
func (*DNSQuery) Type() string { return "dns-request" }

// AppendText implements flow.Request: "DNS Query a.test. A".
func (q *DNSQuery) AppendText(dst []byte) []byte {
	dst = append(dst, "DNS Query "...)
	dst = flow.AppendEscaped(dst, q.Name)
	dst = append(dst, ' ')
	return appendQType(dst, q.QType)
}

// AppendJSON implements flow.Request with Hubble's words.
func (q *DNSQuery) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"query":`...)
	dst = flow.AppendJSONString(dst, q.Name)
	dst = append(dst, `,"qtypes":["`...)
	dst = appendQType(dst, q.QType)
	return append(dst, `"]}`...)
}

// appendQType adds the name of a type of records; one without is TYPE123 (RFC 3597
// section 5).
func appendQType(dst []byte, t uint16) []byte {
	for _, known := range qtypes {
		if known.number == t {
			return append(dst, known.name...)
		}
	}
	return strconv.AppendUint(append(dst, "TYPE"...), uint64(t), 10)
}

var qtypes = [...]struct {
	number uint16
	name   string
}{
	{1, "A"}, {28, "AAAA"}, {65, "HTTPS"}, {64, "SVCB"}, {5, "CNAME"}, {12, "PTR"}, {33, "SRV"}, {16, "TXT"}, {15, "MX"},
	{2, "NS"}, {6, "SOA"}, {43, "DS"}, {48, "DNSKEY"}, {46, "RRSIG"}, {47, "NSEC"}, {50, "NSEC3"}, {257, "CAA"}, {35, "NAPTR"},
	{39, "DNAME"}, {52, "TLSA"}, {44, "SSHFP"}, {255, "ANY"}, {252, "AXFR"}, {251, "IXFR"},
}

// QTypeNumber is the number of a type's name, "A" or "TYPE123".
func QTypeNumber(name string) (uint16, bool) {
	for _, known := range qtypes {
		if known.name == name {
			return known.number, true
		}
	}
	if len(name) > len("TYPE") && name[:4] == "TYPE" {
		n, err := strconv.ParseUint(name[4:], 10, 16)
		return uint16(n), err == nil
	}
	return 0, false
}
