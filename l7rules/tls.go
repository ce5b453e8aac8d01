package l7rules

import "github.com/weir-proxy/weir/l7rules/flow"

// ClientHello is the beginning of a TLS connection as rules see it.
type ClientHello struct {
	ServerName string // of the extension server_name (RFC 6066 section 3), "" without one
}

var _ flow.Request = (*ClientHello)(nil)

// Type implements flow.Request.
func (*ClientHello) Type() string { return "tls-request" }

// AppendText implements flow.Request: "TLS ClientHello a.test".
func (h *ClientHello) AppendText(dst []byte) []byte {
	dst = append(dst, "TLS ClientHello"...)
	if h.ServerName != "" {
		dst = flow.AppendEscaped(append(dst, ' '), h.ServerName)
	}
	return dst
}

// AppendJSON implements flow.Request.
func (h *ClientHello) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"server_name":`...)
	return append(flow.AppendJSONString(dst, h.ServerName), '}')
}
