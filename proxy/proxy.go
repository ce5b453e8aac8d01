package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// DefaultMaxConnections is how many connections one endpoint may have through
// the proxy at a time.
const DefaultMaxConnections = 16384

// Source is where connections come from: the kernel (package redirect), or a
// plain listener in front of one address (agent/gateway).
type Source interface {
	// Accept waits for a connection and identifies it. An error that wraps
	// net.ErrClosed ends the server; any other concerns one connection only,
	// which Accept has closed.
	Accept() (*Inbound, error)
	// Close makes Accept return an error that wraps net.ErrClosed.
	Close() error
}

// Inbound is an accepted connection and what is known about it.
type Inbound struct {
	Conn        *net.TCPConn
	Original    OriginalDst // IPv4 in its 4-byte form
	Direction   flow.Direction
	Source      flow.Party
	Destination flow.Party
	// Protocol names the handler. Where there is none for it the connection is
	// reset, so the zero value denies.
	Protocol l7rules.Protocol
	// Lenient says that Judge refuses nothing: what is no request of Protocol passes, too,
	// and nil is asked about it.
	Lenient bool
	// Judge decides one request by the policy that holds at that moment, so that
	// a reload judges the next request of an open connection. It must be safe
	// for use from many goroutines.
	Judge func(flow.Request) l7rules.Decision
	// JudgeReceiver decides for the receiver what Judge has let through for the
	// sender, where both are on this machine; nil where the receiver is not judged
	// here.
	JudgeReceiver func(flow.Request) l7rules.Decision
	// Track is told how to reset the connection before a byte of it is read, and returns
	// what is to be called when it has ended; nil is none.
	Track func(reset func()) (ended func())
	// Hold is told when the connection has become one request's for good, as after an
	// upgrade, or nobody's (nil): its bytes are not looked at any more. nil is none.
	Hold func(flow.Request)
	// Gone ends the connection with a RST on both sides when it is done: its endpoint
	// is not there any more. nil is never.
	Gone context.Context
	// Dial connects to Original.
	Dial func(context.Context) (*net.TCPConn, error)
}

// endpoint is the party on whose behalf the connection is judged.
func (in *Inbound) endpoint() string {
	p := in.Source
	if in.Direction == flow.Ingress {
		p = in.Destination
	}
	if p.Name != "" {
		return p.Name
	}
	return fmt.Sprint(p.Identity)
}

// Server accepts connections and gives each to the handler of its protocol. Its
// fields are set before the first Serve and not changed after it.
type Server struct {
	Handlers map[l7rules.Protocol]Handler
	// Looks tells by a client's first bytes whether they begin a request of a protocol, for
	// connections that may carry anything.
	Looks map[l7rules.Protocol]func(first []byte) bool
	// Sink receives one record per decision.
	Sink flow.Sink
	// MaxConnections bounds the open connections of one endpoint; 0 is
	// DefaultMaxConnections.
	MaxConnections int
	// Log receives what concerns the operator of the proxy; nil is slog.Default.
	Log *slog.Logger

	buffers Buffers

	mu      sync.Mutex
	open    map[string]int // connections by endpoint
	hangups *hangups
	serving int
}

// Serve accepts from src until ctx is done or src is closed. Then it closes src
// and resets every connection, and returns when all have ended: nil after ctx
// was done, else what Accept said. It may be called for several sources at once.
func (s *Server) Serve(ctx context.Context, src Source) error {
	if err := s.start(); err != nil {
		return err
	}
	defer s.stop()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { src.Close() })()

	const maxPause = time.Second
	var pause time.Duration
	for {
		in, err := src.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				in.Conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept connection: %w", err)
		case err != nil:
			// Perhaps out of descriptors: do not spin.
			pause = min(max(2*pause, time.Millisecond), maxPause)
			s.log().Warn("accept connection", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		wg.Go(func() { s.serveConn(ctx, in) })
	}
}

func (s *Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving == 0 {
		h, err := newHangups()
		if err != nil {
			return fmt.Errorf("watch connections: %w", err)
		}
		s.hangups = h
		s.open = make(map[string]int)
	}
	s.serving++
	return nil
}

func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving--; s.serving == 0 {
		s.hangups.close()
	}
}

// admit counts a connection of endpoint; it reports whether there may be one more.
func (s *Server) admit(endpoint string) bool {
	limit := s.MaxConnections
	if limit == 0 {
		limit = DefaultMaxConnections
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[endpoint] >= limit {
		return false
	}
	s.open[endpoint]++
	return true
}

func (s *Server) leave(endpoint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[endpoint]--; s.open[endpoint] == 0 {
		delete(s.open, endpoint)
	}
}

func (s *Server) log() *slog.Logger {
	if s.Log != nil {
		return s.Log
	}
	return slog.Default()
}
