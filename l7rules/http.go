package l7rules

import "github.com/weir-proxy/weir/l7rules/flow"

// HTTPRequest is one HTTP request as rules see it: what the handler parsed,
// canonicalised, and will forward if it is allowed. All byte slices alias the
// connection's buffer and are valid only during Decide.
type HTTPRequest struct {
	Proto  string // "HTTP/1.1", "HTTP/1.0", "HTTP/2"
	Method []byte
	Path   []byte // canonical origin-form, query included
	Host   []byte // canonical Host or :authority, port included if the client sent one
	Header []HeaderField
}

// HeaderField is one header field in the order the client sent it. Names are as
// they were sent and compare without regard to case; values have no
// surrounding white space.
type HeaderField struct {
	Name, Value []byte
}

var _ flow.Request = (*HTTPRequest)(nil)

// Type implements flow.Request.
func (*HTTPRequest) Type() string { return "http-request" }

// AppendText implements flow.Request: "HTTP/1.1 GET http://host/path".
func (r *HTTPRequest) AppendText(dst []byte) []byte {
	dst = flow.AppendEscaped(dst, r.Proto)
	dst = append(dst, ' ')
	dst = flow.AppendEscaped(dst, r.Method)
	dst = append(dst, ' ')
	if r.isOrigin() {
		dst = append(dst, "http://"...)
		dst = flow.AppendEscaped(dst, r.Host)
	}
	return flow.AppendEscaped(dst, r.Path)
}

// isOrigin reports whether the path belongs behind the host. "*" and what CONNECT
// names do not.
func (r *HTTPRequest) isOrigin() bool {
	return len(r.Host) > 0 && len(r.Path) > 0 && r.Path[0] == '/'
}

// AppendJSON implements flow.Request with Hubble's words. Header fields are left out:
// they carry secrets.
func (r *HTTPRequest) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"protocol":`...)
	dst = flow.AppendJSONString(dst, r.Proto)
	dst = append(dst, `,"method":`...)
	dst = flow.AppendJSONString(dst, r.Method)
	dst = append(dst, `,"url":"`...)
	if r.isOrigin() {
		dst = append(dst, "http://"...)
		dst = flow.AppendJSONText(dst, r.Host)
	}
	dst = flow.AppendJSONText(dst, r.Path)
	return append(dst, `"}`...)
}
