package proxy

import (
	"context"
	"runtime/debug"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// serveConn is one connection: identified by its source, counted against its
// endpoint, handed to the handler its rules name, closed. Whatever goes wrong
// here ends in a RST and a record, never in a connection that passes unjudged.
func (s *Server) serveConn(ctx context.Context, in *Inbound) {
	sess := s.newSession(in)
	failed := true
	defer func() {
		if p := recover(); p != nil {
			s.log().Error("handler panicked", "panic", p, "protocol", in.Protocol, "source", in.Source.Name,
				"destination", in.Original, "stack", string(debug.Stack()))
			sess.Refuse(flow.Error, "internal error: the connection was reset, see the proxy's log", nil)
			failed = true
		}
		sess.end(failed)
	}()

	handler := s.Handlers[in.Protocol]
	if handler == nil || in.Judge == nil || in.Dial == nil {
		sess.Refuse(flow.Error, "no handler for protocol \""+string(in.Protocol)+"\" here", nil)
		return
	}
	endpoint := in.endpoint()
	if !s.admit(endpoint) {
		sess.Refuse(flow.Error, "too many connections of "+endpoint+" through the proxy", nil)
		return
	}
	defer s.leave(endpoint)
	defer context.AfterFunc(ctx, func() { sess.end(true) })()
	if in.Track != nil {
		defer in.Track(func() { sess.end(true) })()
	}
	if in.Gone != nil {
		defer context.AfterFunc(in.Gone, func() { sess.end(true) })()
	}

	if in.Lenient {
		handler = sniff(s.Looks[in.Protocol], handler)
	}
	failed = handler(ctx, sess) != nil
}

// wholeKind is the type of the record of a connection that is judged as a whole.
const wholeKind = "tcp-connect"

func (s *Server) newSession(in *Inbound) *Session {
	sess := &Session{
		Client:   NewStream(in.Conn),
		Original: in.Original,
		dial:     in.Dial,
		decide:   in.Judge,
		accept:   in.JudgeReceiver,
		hold:     in.Hold,
		sink:     s.Sink,
		kind:     wholeKind,
		buffers:  &s.buffers,
		hangups:  s.hangups,
		record: flow.Record{
			Direction:   in.Direction,
			Source:      in.Source,
			Destination: in.Destination,
		},
	}
	if in.Protocol != "" {
		sess.kind = string(in.Protocol) + "-request"
	}
	sess.Client.watch.by = s.hangups
	return sess
}
