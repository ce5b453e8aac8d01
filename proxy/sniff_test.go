package proxy

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// Where nothing is refused, what begins a request goes to the handler of the protocol, and
// all else passes as it is, whoever speaks first and however little.
func TestLenient(t *testing.T) {
	type side struct{ client, upstream string }
	for _, tt := range []struct {
		name      string
		says      side // before the other has said anything
		record    string
		byHandler bool
	}{
		{"request", side{client: "GET /"}, "FORWARDED x-request", true},
		{"first byte of a request", side{client: "G"}, "FORWARDED x-request", true},
		{"something else", side{client: "\x16\x03\x01 hello"}, "FORWARDED tcp-connect", false},
		{"the server speaks first", side{upstream: "220 ready\r\n"}, "FORWARDED tcp-connect", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			upstream, dialed := tcpPair(t)
			byHandler := make(chan bool, 1)
			s := serve(t, map[l7rules.Protocol]Handler{"x": func(ctx context.Context, s *Session) error {
				byHandler <- true
				s.Decide(nil)
				up, err := s.Dial(ctx)
				if err != nil {
					return err
				}
				return Tunnel(s, up)
			}}, 0)
			s.server.Looks = map[l7rules.Protocol]func([]byte) bool{"x": func(first []byte) bool { return bytes.HasPrefix([]byte("GET /"), first) }}
			c := s.connect(t, Inbound{Protocol: "x", Lenient: true, Dial: func(context.Context) (*net.TCPConn, error) { return dialed, nil }})
			pass := func(from, to net.Conn, text string) {
				io.WriteString(from, text)
				got := make([]byte, len(text))
				if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
					t.Fatalf("%q came as %q, %v", text, got, err)
				}
			}
			pass(c, upstream, tt.says.client)
			pass(upstream, c, tt.says.upstream)
			pass(c, upstream, "more")
			pass(upstream, c, "answer")
			c.CloseWrite()
			upstream.CloseWrite()
			for _, conn := range []net.Conn{c, upstream} {
				if b, err := io.ReadAll(conn); err != nil || len(b) != 0 {
					t.Errorf("at the end: %q, %v", b, err)
				}
			}
			s.wantRecords(t, tt.record)
			select {
			case <-byHandler:
				if !tt.byHandler {
					t.Error("the handler had it")
				}
			default:
				if tt.byHandler {
					t.Error("the handler did not have it")
				}
			}
		})
	}
}

// A side that ends without a word is passed on, and a judge that refuses after all is obeyed.
func TestLenientEnds(t *testing.T) {
	handlers := map[l7rules.Protocol]Handler{"x": func(context.Context, *Session) error { panic("no request") }}
	for _, clientEnds := range []bool{true, false} {
		upstream, dialed := tcpPair(t)
		s := serve(t, handlers, 0)
		c := s.connect(t, Inbound{Protocol: "x", Lenient: true, Dial: func(context.Context) (*net.TCPConn, error) { return dialed, nil }})
		from, to := c, upstream
		if !clientEnds {
			from, to = upstream, c
		}
		from.CloseWrite()
		if b, err := io.ReadAll(to); err != nil || len(b) != 0 {
			t.Errorf("client ends: %v: %q, %v", clientEnds, b, err)
		}
		io.WriteString(to, "late")
		to.CloseWrite()
		if b, err := io.ReadAll(from); err != nil || string(b) != "late" {
			t.Errorf("client ends: %v: %q, %v", clientEnds, b, err)
		}
	}
	upstream, dialed := tcpPair(t)
	s := serve(t, handlers, 0)
	c := s.connect(t, Inbound{Protocol: "x", Lenient: true, Dial: func(context.Context) (*net.TCPConn, error) { return dialed, nil },
		Judge: func(flow.Request) l7rules.Decision { return l7rules.Decision{Reason: "no"} }})
	wantReset(t, c)
	wantReset(t, upstream)
	s.wantRecords(t, "DROPPED tcp-connect: no")
}
