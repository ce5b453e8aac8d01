package httpproxy

import (
	"bytes"

	"github.com/weir-proxy/weir/l7rules"
)

// Limits of a head, requests and responses alike. The total is what a
// proxy.Buffer grows to.
const (
	maxHead   = 64 << 10
	maxFields = 128
	// keptFields is for how many fields a connection keeps memory between messages.
	keptFields = 32
)

// head is what a request's and a response's head have in common: header fields
// after a start line. It is filled by parseFields and brought to its canonical
// form by compact; nothing in it is valid longer than the bytes it was parsed from.
type head struct {
	lines  []line
	fields []l7rules.HeaderField // after compact: the fields that go on

	host        []byte
	length      int64 // of the body; -1 if there is no Content-Length
	hasHost     bool
	chunked     bool
	coded       bool // there is a Transfer-Encoding
	close       bool // Connection: close
	keepAlive   bool // Connection: keep-alive
	wantsChange bool // Connection: upgrade
	hasUpgrade  bool
	connection  bool // there is a Connection field
	namesField  bool // Connection: anything else
	expect      bool // Expect: 100-continue
}

// line is one header field as offsets into the head.
type line struct {
	name, colon, value, end, next int
	kind                          fieldKind
	drop                          bool
}

// fieldKind marks the fields this package acts upon.
type fieldKind uint8

const (
	otherField fieldKind = iota
	hostField
	connectionField
	lengthField
	codingField
	upgradeField
	settingsField // HTTP2-Settings
	expectField
	teField
	trailerField
)

// trim gives back the memory of an uncommonly long head.
func (h *head) trim() {
	if cap(h.lines) > keptFields {
		h.lines, h.fields = nil, nil
	}
}

// parseFields reads header fields from b[i:] up to the empty line that ends
// them (RFC 9112, section 5). It returns the offset behind that line, or errMore
// if b ends before it and holds no error. b is not changed.
func (h *head) parseFields(b []byte, i int) (int, error) {
	h.lines = h.lines[:0]
	h.host, h.length = nil, -1
	h.hasHost, h.chunked, h.coded, h.close, h.keepAlive = false, false, false, false, false
	h.wantsChange, h.hasUpgrade, h.connection, h.namesField, h.expect = false, false, false, false, false
	for {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0, errMore
		}
		end := i + n
		if end == i || b[end-1] != '\r' {
			return 0, errBareLF
		}
		end--
		if end == i {
			return i + 2, nil
		}
		if len(h.lines) == maxFields {
			return 0, errFieldCount
		}
		l, err := parseLine(b[:end], i)
		if err != nil {
			return 0, err
		}
		l.next = end + 2
		l.kind = kindOf(b[l.name:l.colon])
		if l.kind != otherField {
			if err := h.note(l.kind, b[l.value:l.end]); err != nil {
				return 0, err
			}
		}
		h.lines = append(h.lines, l)
		i = l.next
	}
}

// parseLine reads the header field b[i:], which has no line end.
func parseLine(b []byte, i int) (line, error) {
	l := line{name: i}
	for i < len(b) && class[b[i]]&isToken != 0 {
		i++
	}
	switch {
	case i == len(b):
		return l, errNoColon
	case b[i] == ':' && i > l.name:
		// as it should be
	case (b[i] == ' ' || b[i] == '\t') && i == l.name:
		return l, errFold
	case b[i] == ' ' || b[i] == '\t':
		return l, errSpaceColon
	default:
		return l, errFieldName
	}
	l.colon = i
	i++
	for i < len(b) && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	l.value = i
	for ; i < len(b); i++ {
		if class[b[i]]&isValue == 0 {
			if b[i] == '\r' {
				return l, errBareCR
			}
			return l, errControl
		}
	}
	for i > l.value && (b[i-1] == ' ' || b[i-1] == '\t') {
		i--
	}
	l.end = i
	return l, nil
}

// note takes in a field that has a meaning for the message as a whole.
func (h *head) note(k fieldKind, v []byte) error {
	switch k {
	case hostField:
		if h.hasHost {
			return errHostTwice
		}
		h.hasHost = true
	case lengthField:
		if h.length >= 0 {
			return errLengthTwice
		}
		n, ok := decimal(v)
		if !ok {
			return errLength
		}
		h.length = n
	case codingField:
		if h.coded || !equalFold(v, "chunked") {
			return errCoding
		}
		h.coded, h.chunked = true, true
	case connectionField:
		h.connection = true
		for list := v; len(list) > 0; {
			var option []byte
			option, list = cutList(list)
			switch {
			case equalFold(option, "close"):
				h.close = true
			case equalFold(option, "keep-alive"):
				h.keepAlive = true
			case equalFold(option, "upgrade"):
				h.wantsChange = true
			case len(option) > 0:
				h.namesField = true
			}
		}
	case upgradeField:
		h.hasUpgrade = true
	case expectField:
		h.expect = true
		if !equalFold(v, "100-continue") {
			return errExpect
		}
	}
	return nil
}

// compact closes the gaps that dropped lines and changed values left in b,
// beginning at offset w, where the start line ends now, and fills in h.fields.
// Each line that goes on becomes name, colon, at most one space, value, CRLF.
// Where nothing changed, nothing is copied. It returns the head's new length.
func (h *head) compact(b []byte, w int) int {
	h.fields = h.fields[:0]
	for i := range h.lines {
		l := &h.lines[i]
		if l.drop {
			continue
		}
		name, value := l.colon-l.name, l.end-l.value
		gap := min(l.value-l.colon-1, 1)
		at := w
		if w != l.name {
			copy(b[w:], b[l.name:l.colon])
		}
		w += name
		b[w] = ':'
		w++
		if gap == 1 {
			b[w] = ' '
			w++
		}
		if w != l.value {
			copy(b[w:], b[l.value:l.end])
		}
		field := l7rules.HeaderField{Name: b[at : at+name : at+name], Value: b[w : w+value : w+value]}
		w += value
		b[w], b[w+1] = '\r', '\n'
		w += 2
		if l.kind == hostField {
			h.host = field.Value
		}
		h.fields = append(h.fields, field)
	}
	b[w], b[w+1] = '\r', '\n'
	return w + 2
}

func kindOf(name []byte) fieldKind {
	switch len(name) {
	case 2:
		if equalFold(name, "te") {
			return teField
		}
	case 4:
		if equalFold(name, "host") {
			return hostField
		}
	case 6:
		if equalFold(name, "expect") {
			return expectField
		}
	case 7:
		if equalFold(name, "upgrade") {
			return upgradeField
		}
		if equalFold(name, "trailer") {
			return trailerField
		}
	case 10:
		if equalFold(name, "connection") {
			return connectionField
		}
	case 14:
		if equalFold(name, "content-length") {
			return lengthField
		}
		if equalFold(name, "http2-settings") {
			return settingsField
		}
	case 17:
		if equalFold(name, "transfer-encoding") {
			return codingField
		}
	}
	return otherField
}

// cutList takes the first member off a comma-separated list (RFC 9110, section 5.6.1).
func cutList(v []byte) (member, rest []byte) {
	if i := bytes.IndexByte(v, ','); i >= 0 {
		return trimOWS(v[:i]), v[i+1:]
	}
	return trimOWS(v), nil
}

func trimOWS(v []byte) []byte {
	for len(v) > 0 && (v[0] == ' ' || v[0] == '\t') {
		v = v[1:]
	}
	for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] == '\t') {
		v = v[:len(v)-1]
	}
	return v
}

// decimal reads a number of at most 18 digits without sign, space or leading zero.
func decimal(v []byte) (int64, bool) {
	if len(v) == 0 || len(v) > 18 || v[0] == '0' && len(v) > 1 {
		return 0, false
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// equalFold compares without regard to ASCII case; lower is in lower case.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
