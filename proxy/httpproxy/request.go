package httpproxy

import (
	"bytes"

	"github.com/weir-proxy/weir/l7rules"
)

// request is one request's head. After parse, the embedded HTTPRequest is what is
// judged and the first size bytes of the buffer are what is sent: the same thing.
type request struct {
	l7rules.HTTPRequest
	head
	read    int // length of the head as it came
	size    int // of the canonical head
	body    framing
	isHead  bool
	is10    bool
	last    bool // the client wants the connection closed afterwards
	upgrade bool // asks for another protocol
}

// maxOptions bounds the members of Connection where one of them names a field.
const maxOptions = 16

// parse reads a request's head at the beginning of b (RFC 9112, sections 2 to 6)
// and, once it is whole, rewrites it in place to its canonical form in
// b[:r.size]. It returns how long it was. If b holds only a good beginning it
// returns errMore and leaves b as it is.
func (r *request) parse(b []byte) (int, error) {
	at := 0
	if len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		at = 2 // RFC 9112, section 2.2: an empty line before the request
	}
	eol := bytes.IndexByte(b[at:], '\n')
	if eol < 0 {
		return 0, errMore
	}
	eol += at
	method, target, is10, err := requestLine(b[at : eol+1])
	if err != nil {
		return 0, err
	}
	r.is10 = is10
	n, err := r.parseFields(b, eol+1)
	if err != nil {
		return 0, err
	}
	if n > maxHead {
		return 0, errHeadSize
	}
	if err := r.framing(); err != nil {
		return 0, err
	}
	if err := r.canonicalHost(b); err != nil {
		return 0, err
	}
	if target, err = r.canonicalTarget(b, method, target); err != nil {
		return 0, err
	}
	if err := r.hopByHop(b); err != nil {
		return 0, err
	}

	// From here on b changes: method, target and version move together.
	w := copy(b, method)
	b[w] = ' '
	w++
	r.Method = b[: w-1 : w-1]
	r.Path = b[w : w+copy(b[w:], target)]
	w += len(r.Path)
	r.Proto = "HTTP/1.1"
	if is10 {
		r.Proto = "HTTP/1.0"
	}
	b[w] = ' '
	w++
	w += copy(b[w:], r.Proto)
	w += copy(b[w:], "\r\n")
	r.size = r.compact(b, w)
	r.Header, r.Host = r.fields, r.host
	r.isHead = string(r.Method) == "HEAD"
	r.last = r.close || is10 && !r.keepAlive
	return n, nil
}

// requestLine takes a request line with its LF apart.
func requestLine(b []byte) (method, target []byte, is10 bool, err error) {
	if len(b) < 2 || b[len(b)-2] != '\r' {
		return nil, nil, false, errBareLF
	}
	b = b[:len(b)-2]
	i := 0
	for i < len(b) && class[b[i]]&isToken != 0 {
		i++
	}
	if i == 0 || i == len(b) || b[i] != ' ' {
		if i == 0 && len(b) > 0 || i < len(b) && b[i] != '\t' {
			return nil, nil, false, errMethod
		}
		return nil, nil, false, errRequestLine
	}
	method, b = b[:i], b[i+1:]
	for i = 0; i < len(b) && class[b[i]]&isTarget != 0; i++ {
	}
	target, b = b[:i], b[i:]
	switch {
	case len(b) > 0 && b[0] == '#':
		return nil, nil, false, errFragment
	case len(b) > 0 && b[0] != ' ':
		return nil, nil, false, errTargetByte
	case len(b) == 0 || len(target) == 0:
		return nil, nil, false, errRequestLine
	}
	switch version := b[1:]; {
	case string(version) == "HTTP/1.1":
		return method, target, false, nil
	case string(version) == "HTTP/1.0":
		return method, target, true, nil
	case string(version) == "HTTP/2.0" && string(method) == "PRI":
		return nil, nil, false, errHTTP2
	case bytes.IndexByte(version, ' ') >= 0:
		return nil, nil, false, errRequestLine
	}
	return nil, nil, false, errVersion
}

// framing decides how the request's body is delimited (RFC 9112, section 6).
func (r *request) framing() error {
	switch {
	case r.coded && r.length >= 0:
		return errLengthAndCoding
	case r.coded && r.is10:
		return errCodingVersion
	case r.chunked:
		r.body = chunkedBody
	case r.length > 0:
		r.body = lengthBody
	default:
		r.body = noBody
	}
	return nil
}

// canonicalHost checks Host (RFC 9112, section 3.2) and puts it into lower case.
func (r *request) canonicalHost(b []byte) error {
	if !r.hasHost {
		if r.is10 {
			return nil
		}
		return errHostMissing
	}
	for i := range r.lines {
		if l := &r.lines[i]; l.kind == hostField {
			r.host = b[l.value:l.end]
		}
	}
	if !validHost(r.host) {
		return errHostByte
	}
	lower(r.host)
	return nil
}

// validHost reports whether h is empty, or a name or address with an optional port.
func validHost(h []byte) bool {
	if len(h) == 0 {
		return true
	}
	i := 0
	if h[0] == '[' {
		for i = 1; i < len(h) && (unhex(h[i]) >= 0 || h[i] == ':' || h[i] == '.'); i++ {
		}
		if i == 1 || i == len(h) || h[i] != ']' {
			return false
		}
		i++
	} else {
		for i < len(h) && class[h[i]]&isHost != 0 {
			i++
		}
		if i == 0 {
			return false
		}
	}
	if i == len(h) {
		return true
	}
	if h[i] != ':' || len(h)-i > 6 {
		return false
	}
	for _, c := range h[i+1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func lower(b []byte) {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
}

// canonicalTarget brings the request target to origin-form (RFC 9112, section
// 3.2), in place.
func (r *request) canonicalTarget(b, method, target []byte) ([]byte, error) {
	options := string(method) == "OPTIONS"
	switch {
	case string(method) == "CONNECT":
		return nil, errConnect
	case target[0] == '/':
		// origin-form
	case len(target) == 1 && target[0] == '*':
		if !options {
			return nil, errAsterisk
		}
		return target, nil
	default:
		var err error
		if target, err = r.stripAuthority(target, options); err != nil || target[0] == '*' {
			return target, err
		}
	}
	n, err := canonicalTarget(target)
	return target[:n], err
}

// stripAuthority turns absolute-form into origin-form, or into * for OPTIONS
// without a path. The authority must be what Host says: section 3.2.2 lets the
// authority win, so a difference is somebody's attempt to be seen as two.
func (r *request) stripAuthority(target []byte, options bool) ([]byte, error) {
	colon := bytes.IndexByte(target, ':')
	if colon <= 0 || len(target) < colon+3 || target[colon+1] != '/' || target[colon+2] != '/' {
		return nil, errTarget
	}
	if !equalFold(target[:colon], "http") {
		return nil, errScheme
	}
	start := colon + 3
	end := start
	for end < len(target) && target[end] != '/' && target[end] != '?' {
		end++
	}
	authority := target[start:end]
	if len(authority) == 0 || !validHost(authority) {
		return nil, errAuthority
	}
	lower(authority)
	if !r.hasHost || !bytes.Equal(authority, r.host) {
		return nil, errHostDiffers
	}
	if end < len(target) && target[end] == '/' {
		return target[end:], nil
	}
	target = target[end-1:] // its first byte is the authority's last, which is spent
	target[0] = '/'
	if options && len(target) == 1 {
		target[0] = '*'
	}
	return target, nil
}

// hopByHop drops what is between the client and its next hop only, before
// anything is judged (RFC 9110, section 7.6.1): fields that Connection names, TE
// but for "trailers", HTTP2-Settings, and Upgrade to what would take the
// connection away from the rules. Dropping Upgrade has the request served as
// HTTP/1.1, which every client that sends it must accept (section 7.8).
func (r *request) hopByHop(b []byte) error {
	keepUpgrade := r.hasUpgrade && r.wantsChange && !r.is10
	keepTE := true
	rewrite := r.hasUpgrade && !keepUpgrade
	for i := range r.lines {
		l := &r.lines[i]
		switch v := b[l.value:l.end]; l.kind {
		case upgradeField:
			keepUpgrade = keepUpgrade && upgradable(v)
		case settingsField:
			l.drop, rewrite = true, true
		case teField:
			if !equalFold(v, "trailers") {
				l.drop, rewrite, keepTE = true, true, false
			}
		}
	}
	if r.hasUpgrade && !keepUpgrade {
		rewrite = true
		for i := range r.lines {
			if r.lines[i].kind == upgradeField {
				r.lines[i].drop = true
			}
		}
	}
	r.upgrade = keepUpgrade
	if !r.connection || !rewrite && !r.namesField {
		return nil
	}

	options := 0
	for i := range r.lines {
		l := &r.lines[i]
		if l.kind != connectionField {
			continue
		}
		w := l.value
		for list := b[l.value:l.end]; len(list) > 0; {
			var option []byte
			option, list = cutList(list)
			if options++; options > maxOptions {
				return errConnectionOption
			}
			switch {
			case len(option) == 0:
				continue
			case equalFold(option, "close"), equalFold(option, "keep-alive"):
			case equalFold(option, "upgrade") && keepUpgrade:
			case equalFold(option, "te") && keepTE:
			default:
				if err := r.dropNamed(b, option); err != nil {
					return err
				}
				continue
			}
			if w > l.value {
				b[w] = ','
				w++
			}
			w += copy(b[w:], option)
		}
		l.end = w
		l.drop = w == l.value
	}
	return nil
}

// upgradable reports whether every protocol of an Upgrade may be asked for:
// anything but HTTP and TLS, which would hide requests from the rules.
func upgradable(v []byte) bool {
	for len(v) > 0 {
		var p []byte
		p, v = cutList(v)
		name, _, _ := bytes.Cut(p, []byte{'/'})
		if equalFold(name, "h2c") || equalFold(name, "h2") || equalFold(name, "h3") ||
			equalFold(name, "http") || equalFold(name, "tls") {
			return false
		}
	}
	return true
}

// dropNamed drops the fields that the connection option names.
func (r *request) dropNamed(b, option []byte) error {
	for i := range r.lines {
		l := &r.lines[i]
		if l.drop || !bytes.EqualFold(b[l.name:l.colon], option) {
			continue
		}
		switch l.kind {
		case hostField, connectionField, lengthField, codingField, expectField, trailerField:
			return errConnectionOption
		}
		l.drop = true
	}
	return nil
}
