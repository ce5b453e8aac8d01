package proxy

import (
	"context"
	"errors"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// Opaque is the Handler for connections that are judged as a whole. It asks for
// one decision, without a request, and passes every byte or none.
func Opaque(ctx context.Context, s *Session) error {
	if d := s.Decide(nil); !d.Allowed() {
		return errRefused
	}
	s.Hold(nil)
	up, err := s.Dial(ctx)
	if err != nil {
		s.Refuse(flow.Error, err.Error(), nil)
		return err
	}
	return Tunnel(s, up)
}

var errRefused = errors.New("connection refused by policy")

// Tunnel passes every byte between the client and up, and each side's FIN to the
// other, until both have ended. If one side fails both are reset.
func Tunnel(s *Session, up *Stream) error {
	pipe := func(dst, src *Stream) error {
		b := s.NewBuffer()
		defer b.Release()
		err := Pipe(dst, src, &b)
		if err != nil {
			dst.Reset()
			src.Reset()
		}
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- pipe(up, s.Client) }()
	received := pipe(s.Client, up)
	return errors.Join(received, <-sent)
}
