// Package proxy carries a redirected connection from accept to its end:
// accept, identify, hand to the handler its rules name, decide each request,
// forward or refuse, record. It knows no application protocol.
package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// Session is one client connection on its way through a handler. The handler
// sees neither policy nor kernel: bytes from Client, a way to the original
// destination, and a judge.
//
// Decide and Refuse are for one goroutine at a time.
type Session struct {
	// Client is the redirected connection.
	Client *Stream
	// Original is where the client was going. IPv4 in its 4-byte form.
	Original OriginalDst

	dial   func(context.Context) (*net.TCPConn, error)
	decide func(flow.Request) l7rules.Decision
	accept func(flow.Request) l7rules.Decision // the receiver's side; may be nil
	hold   func(flow.Request)
	record flow.Record // reused for every decision of this session
	sink   flow.Sink

	kind    string // record type of what has no request
	buffers *Buffers
	hangups *hangups

	dialed *Stream // what the next Dial returns, if there is something

	mu       sync.Mutex
	upstream []*Stream
	aborted  bool
}

// OriginalDst is the address a client asked for, before it was redirected. It is
// a type of its own so that it is never mistaken for an address a socket has.
type OriginalDst struct{ netip.AddrPort }

// Handler speaks one application protocol. It returns when the connection has
// ended; the caller closes what is left open: with a FIN if the handler returns
// nil, with a RST on both sides otherwise.
type Handler func(ctx context.Context, s *Session) error

// Decide judges one request and leaves the record of it, one for each side that
// was asked. It is called once per request, with exactly what will be forwarded if
// the decision allows it.
func (s *Session) Decide(req flow.Request) l7rules.Decision {
	d := s.decide(req)
	s.write(d, req)
	if s.accept == nil || !d.Allowed() {
		return d
	}
	d = s.accept(req)
	own := s.record.Direction
	s.record.Direction = flow.Ingress
	s.write(d, req)
	s.record.Direction = own
	return d
}

// Hold says that all that follows on the connection belongs to a request that was let
// through, and is not looked at: if the request is not allowed any more the connection is
// reset. nil is a connection that was judged as a whole. req is kept.
func (s *Session) Hold(req flow.Request) {
	if s.hold != nil {
		s.hold(req)
	}
}

// Refuse leaves the record of something that was refused without being judged,
// because it could not be read or carried. req is nil where none could be read.
// The verdict is flow.Error, or flow.Dropped for what policy excludes as a
// whole, such as TLS under an HTTP rule.
func (s *Session) Refuse(verdict flow.Verdict, reason string, req flow.Request) {
	s.write(l7rules.Decision{Verdict: verdict, Reason: reason}, req)
}

func (s *Session) write(d l7rules.Decision, req flow.Request) {
	r := &s.record
	r.Time = time.Now()
	r.Verdict, r.Policy, r.Reason = d.Verdict, d.Policy, d.Reason
	r.Request, r.Type = req, s.kind
	if req != nil {
		r.Type = req.Type()
	}
	s.sink(r)
	r.Request = nil
}

// Dial connects to where the client was going. The session closes the stream
// when the handler returns, if the handler has not.
func (s *Session) Dial(ctx context.Context) (*Stream, error) {
	if up := s.dialed; up != nil {
		s.dialed = nil
		return up, nil
	}
	c, err := s.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to %v: %w", s.Original, err)
	}
	up := NewStream(c)
	up.watch.by = s.hangups
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted {
		up.Reset()
		return nil, fmt.Errorf("connect to %v: %w", s.Original, net.ErrClosed)
	}
	s.upstream = append(s.upstream, up)
	return up, nil
}

// NewBuffer returns an empty buffer that borrows from the server's memory.
// The handler releases it before it returns.
func (s *Session) NewBuffer() Buffer { return s.buffers.NewBuffer() }

// end closes what is open.
func (s *Session) end(reset bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	for _, st := range append(s.upstream, s.Client) {
		if reset {
			st.Reset()
		} else {
			st.Close()
		}
	}
}
