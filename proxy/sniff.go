package proxy

import (
	"context"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// sniff is a Handler for a connection on which nothing is refused. It connects to the
// upstream, looks at who speaks first, and gives the connection to h if that is the
// client and looks says that it begins a request; all else is recorded as a whole and
// passed.
func sniff(looks func(first []byte) bool, h Handler) Handler {
	return func(ctx context.Context, s *Session) error {
		up, err := s.Dial(ctx)
		if err != nil {
			s.Refuse(flow.Error, err.Error(), nil)
			return err
		}
		if looks != nil && s.clientBegins(up, looks) {
			s.dialed = up
			return h(ctx, s)
		}
		s.kind = wholeKind
		if d := s.Decide(nil); !d.Allowed() {
			return errRefused
		}
		s.Hold(nil)
		return Tunnel(s, up)
	}
}

// clientBegins waits for the first bytes of either side, which it leaves to be read.
func (s *Session) clientBegins(up *Stream, looks func([]byte) bool) bool {
	in, out := s.NewBuffer(), s.NewBuffer()
	defer in.Release()
	defer out.Release()
	spoke := make(chan struct{})
	go func() {
		defer close(spoke)
		up.Fill(&out) // whatever happened, the next read meets it again
		s.Client.Interrupt()
	}()
	s.Client.Fill(&in)
	up.Interrupt()
	<-spoke
	for _, side := range []struct {
		s *Stream
		b *Buffer
	}{{s.Client, &in}, {up, &out}} {
		side.s.Resume()
		side.s.Unread(side.b)
	}
	return out.Len() == 0 && in.Len() > 0 && looks(in.Bytes())
}
