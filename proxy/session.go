// Package proxy carries a redirected connection from accept to its end:
// accept, identify, hand to the handler its rules name, decide each request,
// forward or refuse, record. It knows no application protocol.
package proxy

import (
	"context"
	"net"
	"net/netip"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// Session is one client connection on its way through a handler. The handler
// sees neither policy nor kernel: bytes from Client, a way to the original
// destination, and a judge.
type Session struct {
	// Client is the redirected connection.
	Client *Stream
	// Original is where the client was going. IPv4 in its 4-byte form.
	Original OriginalDst

	dial   func(context.Context) (*net.TCPConn, error)
	decide func(flow.Request) l7rules.Decision
	record flow.Record // reused for every decision of this session
	sink   flow.Sink
}

// OriginalDst is the address a client asked for, before it was redirected. It is
// a type of its own so that it is never mistaken for an address a socket has.
type OriginalDst struct{ netip.AddrPort }

// Handler speaks one application protocol. It returns when the connection has
// ended; the caller closes what is left open.
type Handler func(ctx context.Context, s *Session) error
