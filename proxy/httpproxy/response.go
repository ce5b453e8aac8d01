package httpproxy

import "bytes"

// response is one response's head.
type response struct {
	head
	size   int // of the canonical head
	status int
	body   framing
	last   bool // the server closes the connection afterwards
}

// parse reads a response's head at the beginning of b and rewrites it in place to
// its canonical form in b[:r.size], as request.parse does. req is what it answers.
func (r *response) parse(b []byte, req *request) (int, error) {
	eol := bytes.IndexByte(b, '\n')
	if eol < 0 {
		return 0, errMore
	}
	status, is10, err := statusLine(b[:eol+1])
	if err != nil {
		return 0, err
	}
	r.status = status
	n, err := r.parseFields(b, eol+1)
	if err != nil {
		return 0, err
	}
	if n > maxHead {
		return 0, errHeadSize
	}
	r.last = r.close || is10 && !r.keepAlive
	if err := r.framing(req, is10); err != nil {
		return 0, err
	}
	r.size = r.compact(b, eol+1)
	return n, nil
}

// statusLine reads a status line with its LF (RFC 9112, section 4). The space
// before an empty reason may be missing: many servers leave it out.
func statusLine(b []byte) (status int, is10 bool, err error) {
	if len(b) < 2 || b[len(b)-2] != '\r' {
		return 0, false, errBareLF
	}
	b = b[:len(b)-2]
	if len(b) < 12 || string(b[:7]) != "HTTP/1." || b[7] != '1' && b[7] != '0' || b[8] != ' ' {
		return 0, false, errStatusLine
	}
	for _, c := range b[9:12] {
		if c < '0' || c > '9' {
			return 0, false, errStatusLine
		}
		status = status*10 + int(c-'0')
	}
	if status < 100 || len(b) > 12 && b[12] != ' ' {
		return 0, false, errStatusLine
	}
	for _, c := range b[12:] {
		if class[c]&isValue == 0 {
			return 0, false, errStatusLine
		}
	}
	return status, b[7] == '0', nil
}

// framing decides how the response's body is delimited (RFC 9112, section 6.3).
func (r *response) framing(req *request, is10 bool) error {
	switch {
	case r.coded && r.length >= 0:
		return errLengthAndCoding
	case r.coded && is10:
		return errCodingVersion
	case r.status < 200 || r.status == 204:
		if r.coded || r.length > 0 {
			return errBodyForbidden
		}
		r.body = noBody
	case req.isHead || r.status == 304:
		r.body = noBody
	case r.chunked && req.is10:
		return errChunkedTo10
	case r.chunked:
		r.body = chunkedBody
	case r.length > 0:
		r.body = lengthBody
	case r.length == 0:
		r.body = noBody
	default:
		r.body = closeBody
		r.last = true
	}
	return nil
}
