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
