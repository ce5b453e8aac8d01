package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// patience bounds every wait of these tests; nothing waits that long unless it fails.
const patience = 10 * time.Second

// fakeSource hands out what the test puts in; closing it ends the server.
type fakeSource struct {
	next   chan func() (*Inbound, error)
	closed chan struct{}
	once   sync.Once
}

func newFakeSource() *fakeSource {
	return &fakeSource{next: make(chan func() (*Inbound, error)), closed: make(chan struct{})}
}

func (s *fakeSource) Accept() (*Inbound, error) {
	select {
	case f := <-s.next:
		return f()
	case <-s.closed:
		return nil, fmt.Errorf("accept: %w", net.ErrClosed)
	}
}

func (s *fakeSource) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// setting is a server with its source and the records it made.
type setting struct {
	source *fakeSource
	server *Server
	cancel context.CancelFunc
	done   chan error

	mu      sync.Mutex
	records []string
}

func serve(t *testing.T, handlers map[l7rules.Protocol]Handler, limit int) *setting {
	t.Helper()
	s := &setting{source: newFakeSource(), done: make(chan error, 1)}
	s.server = &Server{
		Handlers:       handlers,
		MaxConnections: limit,
		Log:            slog.New(slog.DiscardHandler),
		Sink: func(r *flow.Record) {
			s.mu.Lock()
			defer s.mu.Unlock()
			text := r.Verdict.String() + " " + r.Type
			if r.Reason != "" {
				text += ": " + r.Reason
			}
			s.records = append(s.records, text)
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.cancel = cancel
	go func() { s.done <- s.server.Serve(ctx, s.source) }()
	t.Cleanup(func() { cancel(); <-s.done })
	return s
}

// connect gives the server a connection and returns the client's end.
func (s *setting) connect(t *testing.T, in Inbound) *net.TCPConn {
	t.Helper()
	client, server := tcpPair(t)
	in.Conn = server
	if in.Judge == nil {
		in.Judge = func(flow.Request) l7rules.Decision { return l7rules.Decision{Verdict: flow.Forwarded} }
	}
	if in.Dial == nil {
		in.Dial = func(context.Context) (*net.TCPConn, error) { return nil, errors.New("nowhere to go") }
	}
	s.source.next <- func() (*Inbound, error) { return &in, nil }
	return client
}

func (s *setting) wantRecords(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if diff := cmp.Diff(want, s.records); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %q, %v; want a RST", b, err)
	}
}

// echo answers every byte with itself.
func echo(_ context.Context, s *Session) error {
	s.Decide(nil)
	b := s.NewBuffer()
	defer b.Release()
	return Pipe(s.Client, s.Client, &b)
}

func wantEcho(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Fatalf("echo said %q, %v", b, err)
	}
}

func TestUnknownProtocol(t *testing.T) {
	s := serve(t, map[l7rules.Protocol]Handler{l7rules.HTTP: echo}, 0)
	wantReset(t, s.connect(t, Inbound{Protocol: "smtp"}))
	wantReset(t, s.connect(t, Inbound{}))
	s.wantRecords(t, `ERROR smtp-request: no handler for protocol "smtp" here`, `ERROR tcp-connect: no handler for protocol "" here`)
}

func TestPanicResetsOneConnection(t *testing.T) {
	s := serve(t, map[l7rules.Protocol]Handler{
		"echo":  echo,
		"panic": func(context.Context, *Session) error { panic("ouch") },
	}, 0)
	other := s.connect(t, Inbound{Protocol: "echo"})
	wantEcho(t, other)
	wantReset(t, s.connect(t, Inbound{Protocol: "panic"}))
	wantEcho(t, other)
	s.wantRecords(t, "FORWARDED echo-request", "ERROR panic-request: internal error: the connection was reset, see the proxy's log")
}

// A judge that panics lets nothing through.
func TestPanicInJudge(t *testing.T) {
	s := serve(t, map[l7rules.Protocol]Handler{"echo": echo}, 0)
	c := s.connect(t, Inbound{Protocol: "echo", Judge: func(flow.Request) l7rules.Decision { panic("ouch") }})
	wantReset(t, c)
	s.wantRecords(t, "ERROR echo-request: internal error: the connection was reset, see the proxy's log")
}

func TestHandlerErrorResetsBothSides(t *testing.T) {
	upstream, dialed := tcpPair(t)
	s := serve(t, map[l7rules.Protocol]Handler{"x": func(ctx context.Context, s *Session) error {
		if _, err := s.Dial(ctx); err != nil {
			t.Error(err)
		}
		return errors.New("broken")
	}}, 0)
	client := s.connect(t, Inbound{Protocol: "x", Dial: func(context.Context) (*net.TCPConn, error) { return dialed, nil }})
	wantReset(t, client)
	wantReset(t, upstream)
}

func TestConnectionsAreCappedByEndpoint(t *testing.T) {
	s := serve(t, map[l7rules.Protocol]Handler{"echo": echo}, 2)
	a := Inbound{Protocol: "echo", Source: flow.Party{Name: "default/a"}, Destination: flow.Party{Name: "default/b"}}
	first, second := s.connect(t, a), s.connect(t, a)
	wantEcho(t, first)
	wantEcho(t, second)
	wantReset(t, s.connect(t, a))
	// Another endpoint is not concerned, nor is the other direction.
	wantEcho(t, s.connect(t, Inbound{Protocol: "echo", Source: flow.Party{Name: "default/c"}}))
	in := a
	in.Direction = flow.Ingress
	wantEcho(t, s.connect(t, in))
	// One leaves, one may come.
	first.CloseWrite()
	if _, err := io.ReadAll(first); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; {
		s.server.mu.Lock()
		n := s.server.open["default/a"]
		s.server.mu.Unlock()
		if n < 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a connection that ended is still counted")
		}
	}
	wantEcho(t, s.connect(t, a))
	s.wantRecords(t, "FORWARDED echo-request", "FORWARDED echo-request", "ERROR echo-request: too many connections of default/a through the proxy",
		"FORWARDED echo-request", "FORWARDED echo-request", "FORWARDED echo-request")
}

func TestAcceptErrorConcernsOneConnection(t *testing.T) {
	s := serve(t, map[l7rules.Protocol]Handler{"echo": echo}, 0)
	for range 3 {
		s.source.next <- func() (*Inbound, error) { return nil, syscall.EMFILE }
	}
	wantEcho(t, s.connect(t, Inbound{Protocol: "echo"}))
}

func TestServeEnds(t *testing.T) {
	t.Run("with its context", func(t *testing.T) {
		s := serve(t, map[l7rules.Protocol]Handler{"echo": echo}, 0)
		c := s.connect(t, Inbound{Protocol: "echo"})
		wantEcho(t, c)
		s.cancel()
		err := <-s.done
		s.done <- err
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
		wantReset(t, c)
		select {
		case <-s.source.closed:
		default:
			t.Error("the source is still open")
		}
	})
	t.Run("with its source", func(t *testing.T) {
		s := serve(t, map[l7rules.Protocol]Handler{"echo": echo}, 0)
		c := s.connect(t, Inbound{Protocol: "echo"})
		wantEcho(t, c)
		s.source.Close()
		err := <-s.done
		s.done <- err
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
		wantReset(t, c)
	})
}

func TestOpaque(t *testing.T) {
	allow := func(flow.Request) l7rules.Decision { return l7rules.Decision{Verdict: flow.Forwarded} }
	t.Run("passes", func(t *testing.T) {
		upstream, dialed := tcpPair(t)
		s := serve(t, map[l7rules.Protocol]Handler{"tcp": Opaque}, 0)
		c := s.connect(t, Inbound{Protocol: "tcp", Judge: allow, Dial: func(context.Context) (*net.TCPConn, error) { return dialed, nil }})
		// Each FIN is passed on, and the other direction goes on after it.
		io.WriteString(c, "ping")
		c.CloseWrite()
		if b, err := io.ReadAll(upstream); err != nil || string(b) != "ping" {
			t.Fatalf("upstream read %q, %v", b, err)
		}
		io.WriteString(upstream, strings.Repeat("pong", 100000))
		upstream.CloseWrite()
		if b, err := io.ReadAll(c); err != nil || string(b) != strings.Repeat("pong", 100000) {
			t.Fatalf("client read %d bytes, %v", len(b), err)
		}
		s.wantRecords(t, "FORWARDED tcp-request")
	})
	t.Run("refuses", func(t *testing.T) {
		s := serve(t, map[l7rules.Protocol]Handler{"tcp": Opaque}, 0)
		wantReset(t, s.connect(t, Inbound{Protocol: "tcp", Judge: func(flow.Request) l7rules.Decision { return l7rules.Decision{Reason: "no"} }}))
		s.wantRecords(t, "DROPPED tcp-request: no")
	})
	t.Run("cannot connect", func(t *testing.T) {
		s := serve(t, map[l7rules.Protocol]Handler{"tcp": Opaque}, 0)
		wantReset(t, s.connect(t, Inbound{Protocol: "tcp", Judge: allow}))
		s.wantRecords(t, "FORWARDED tcp-request", "ERROR tcp-request: connect to invalid AddrPort: nowhere to go")
	})
}
