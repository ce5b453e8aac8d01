package httpproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/proxy"
)

// patience bounds every wait of these tests; nothing waits that long unless it fails.
const patience = 10 * time.Second

// TestWire runs the conversations in testdata/*.txtar through a real proxy between
// a real client and a real origin; testdata/README.md says how to read them. Each is
// held twice: at once, and byte by byte from both sides. The outcome is the same.
func TestWire(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	total := 0
	for _, file := range files {
		talks := parseTalks(t, file)
		total += len(talks)
		for _, talk := range talks {
			for _, slow := range []bool{false, true} {
				pace := "at once"
				if slow {
					pace = "byte by byte"
				}
				t.Run(filepath.Base(file)+"/"+talk.name+"/"+pace, func(t *testing.T) {
					t.Parallel()
					talk.run(t, slow)
				})
			}
		}
	}
	if total < 60 {
		t.Errorf("only %d conversations were found", total)
	}
}

// talk is one conversation: what is said and heard, in order.
type talk struct {
	name    string
	steps   []step
	records []string
}

type step struct {
	who   string   // client, origin, answer, response
	flags []string // fin, close, reset, any, later
	bytes []byte
	done  chan struct{} // closed when it was said or heard
}

func (s step) is(flag string) bool { return slices.Contains(s.flags, flag) }

func parseTalks(t testing.TB, file string) []*talk {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var talks []*talk
	for _, f := range archive.Files {
		name, rest, ok := strings.Cut(f.Name, ": ")
		if !ok {
			t.Fatalf("%s: %q: want name: part", file, f.Name)
		}
		if len(talks) == 0 || talks[len(talks)-1].name != name {
			talks = append(talks, &talk{name: name})
		}
		last := talks[len(talks)-1]
		words := strings.Fields(strings.ReplaceAll(rest, ",", " "))
		if words[0] == "records" {
			last.records = strings.Split(strings.TrimSuffix(string(f.Data), "\n"), "\n")
			continue
		}
		data, err := unquote(string(f.Data))
		if err != nil {
			t.Fatalf("%s: %s: %v", file, f.Name, err)
		}
		s := step{words[0], words[1:], data, nil}
		switch s.who {
		case "client", "origin", "answer", "response":
		case "denied", "refused":
			s = proxyAnswer(s)
		default:
			t.Fatalf("%s: %q: who is that?", file, f.Name)
		}
		last.steps = append(last.steps, s)
	}
	return talks
}

// proxyAnswer makes the response of the proxy's own of which s.bytes is the reason.
func proxyAnswer(s step) step {
	reason := strings.TrimSuffix(string(s.bytes), "\r\n")
	status, body := "403 Forbidden", "Access denied\r\n"
	if s.who == "refused" {
		status = map[string]string{"400": "400 Bad Request", "502": "502 Bad Gateway"}[s.flags[0]]
		body = status[4:] + ": " + reason + "\r\n"
		s.flags = append(s.flags, "close")
	}
	connection := ""
	if s.is("close") {
		connection = "Connection: close\r\n"
	}
	s.who = "response"
	s.bytes = fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nX-Weir-Reason: %s\r\n%s\r\n%s",
		status, len(body), reason, connection, body)
	return s
}

// unquote makes the bytes on the wire of a part: lines end in CRLF, except after a
// backslash, which ends nothing; \n \r \t \\ and \xHH are bytes, and \{N*x} is N
// times x.
func unquote(s string) ([]byte, error) {
	var b []byte
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\n':
			b = append(b, "\r\n"...)
		case s[i] != '\\':
			b = append(b, s[i])
		default:
			i++
			if i == len(s) {
				return nil, errors.New("backslash at the end")
			}
			switch s[i] {
			case '\n':
			case 'n':
				b = append(b, '\n')
			case 'r':
				b = append(b, '\r')
			case 't':
				b = append(b, '\t')
			case '\\':
				b = append(b, '\\')
			case 'x':
				v, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
				if err != nil {
					return nil, err
				}
				b = append(b, byte(v))
				i += 2
			case '{':
				end := i + strings.Index(s[i:], "}")
				count, what, ok := strings.Cut(s[i+1:end], "*")
				n, err := strconv.Atoi(count)
				if !ok || err != nil {
					return nil, fmt.Errorf("bad repetition %q", s[i:end])
				}
				b = append(b, strings.Repeat(what, n)...)
				i = end
			default:
				return nil, fmt.Errorf("unknown escape \\%c", s[i])
			}
		}
	}
	return b, nil
}

// judge lets through what begins with /public, and nothing with X-Deny.
func judge(req flow.Request) l7rules.Decision {
	r := req.(*l7rules.HTTPRequest)
	for _, h := range r.Header {
		if strings.EqualFold(string(h.Name), "x-deny") {
			return l7rules.Decision{Reason: "X-Deny is there"}
		}
	}
	if bytes.HasPrefix(r.Path, []byte("/public")) || string(r.Path) == "*" {
		return l7rules.Decision{Verdict: flow.Forwarded, Policy: "default/test[egress 0]"}
	}
	return l7rules.Decision{Reason: "no rule allows it"}
}

// bench is a proxy between a client and an origin.
type bench struct {
	addr   string
	origin net.Listener
	quiet  atomic.Bool // keep no records

	mu      sync.Mutex
	records []string
}

func newBench(t testing.TB, judge func(flow.Request) l7rules.Decision) *bench {
	t.Helper()
	return newBenchOf(t, judge, Handle)
}

func newBenchOf(t testing.TB, judge func(flow.Request) l7rules.Decision, handler proxy.Handler) *bench {
	t.Helper()
	b := &bench{origin: listen(t)}
	front := listen(t)
	b.addr = front.Addr().String()
	s := &proxy.Server{Handlers: map[l7rules.Protocol]proxy.Handler{l7rules.HTTP: handler}, Sink: b.sink}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, &source{front, b.origin.Addr().(*net.TCPAddr).AddrPort(), judge}) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("connections did not end with the server")
		}
	})
	return b
}

func (b *bench) sink(r *flow.Record) {
	if b.quiet.Load() {
		return
	}
	text := r.Verdict.String()
	if r.Request != nil {
		text += " " + string(r.Request.AppendText(nil))
	}
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records = append(b.records, text)
}

func (b *bench) dial(t testing.TB) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// source is a proxy.Source with one destination.
type source struct {
	net.Listener
	to    netip.AddrPort
	judge func(flow.Request) l7rules.Decision
}

func (s *source) Accept() (*proxy.Inbound, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &proxy.Inbound{
		Conn:     c.(*net.TCPConn),
		Original: proxy.OriginalDst{AddrPort: s.to},
		Source:   flow.Party{Name: "test/client"},
		Protocol: l7rules.HTTP,
		Judge:    s.judge,
		Dial: func(ctx context.Context) (*net.TCPConn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", s.to.String())
			if err != nil {
				return nil, err
			}
			return c.(*net.TCPConn), nil
		},
	}, nil
}

func (talk talk) run(t *testing.T, slow bool) {
	b := newBench(t, judge)
	client := b.dial(t)
	talk.steps = slices.Clone(talk.steps) // both paces run at once
	for i := range talk.steps {
		talk.steps[i].done = make(chan struct{})
	}

	var reset atomic.Bool // a write of the client's was told
	var wg sync.WaitGroup
	origin := make(chan string, 1)
	wg.Go(func() { origin <- talk.playOrigin(b.origin, slow) })
	wg.Go(func() {
		for i, s := range talk.steps {
			if s.who == "client" {
				talk.await(i)
				if err := say(client, s.bytes, slow); errors.Is(err, syscall.ECONNRESET) {
					reset.Store(true)
				}
				if s.is("fin") {
					client.CloseWrite()
				}
				close(s.done)
			}
		}
	})
	for _, s := range talk.steps {
		if s.who == "response" {
			if diff := hear(client, s, &reset); diff != "" {
				t.Errorf("client: %s", diff)
			}
			close(s.done)
		}
	}
	client.Close()
	b.origin.Close()
	wg.Wait()
	if diff := <-origin; diff != "" {
		t.Errorf("origin: %s", diff)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	want := talk.records
	if len(want) == 1 && want[0] == "" {
		want = nil
	}
	if diff := cmp.Diff(want, b.records); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// await waits, if step i is for later, until all before it are done.
func (talk *talk) await(i int) {
	if !talk.steps[i].is("later") {
		return
	}
	for _, s := range talk.steps[:i] {
		select {
		case <-s.done:
		case <-time.After(patience):
			return
		}
	}
}

// playOrigin accepts one connection, if the conversation has a part for it, and
// plays that part. More connections, or one where there is no part, are a failure.
func (talk *talk) playOrigin(l net.Listener, slow bool) string {
	var conn *net.TCPConn
	for i, s := range talk.steps {
		if s.who != "origin" && s.who != "answer" {
			continue
		}
		talk.await(i)
		if s.is("any") && slow {
			if c, err := l.Accept(); err == nil {
				io.Copy(io.Discard, c)
				c.Close()
			}
			return ""
		}
		if len(s.bytes) == 0 && s.who == "origin" && conn == nil {
			continue
		}
		if conn == nil {
			c, err := l.Accept()
			if err != nil {
				return "no connection came"
			}
			defer c.Close()
			conn = c.(*net.TCPConn)
			conn.SetDeadline(time.Now().Add(patience))
		}
		if s.who == "origin" {
			if diff := hear(conn, s, new(atomic.Bool)); diff != "" {
				return diff
			}
			close(s.done)
			continue
		}
		say(conn, s.bytes, slow)
		close(s.done)
		switch {
		case s.is("fin"):
			conn.CloseWrite()
		case s.is("close"):
			conn.Close()
			return ""
		case s.is("reset"):
			conn.SetLinger(0)
			conn.Close()
			return ""
		}
	}
	if conn != nil {
		if rest, err := io.ReadAll(conn); len(rest) > 0 {
			return fmt.Sprintf("got more: %q (%v)", rest, err)
		}
	}
	if c, err := l.Accept(); err == nil {
		c.SetDeadline(time.Now().Add(patience))
		got, _ := io.ReadAll(c)
		c.Close()
		if conn != nil || len(got) > 0 {
			return fmt.Sprintf("a connection came that should not: %q", got)
		}
	}
	return ""
}

// A reset is told once: to the write that meets it, or to the next read.
func say(c net.Conn, b []byte, slow bool) error {
	if !slow {
		_, err := c.Write(b)
		return err
	}
	for i := range b {
		if _, err := c.Write(b[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// hear reads what s says should come, and with close or reset the end after it.
func hear(c *net.TCPConn, s step, told *atomic.Bool) string {
	got := make([]byte, len(s.bytes))
	n, err := io.ReadFull(c, got)
	if err == nil && (s.is("close") || s.is("reset")) {
		var rest []byte
		rest, err = io.ReadAll(c)
		got, n = append(got, rest...), n+len(rest)
	}
	switch {
	case !bytes.Equal(got[:n], s.bytes):
		return fmt.Sprintf("heard %v (-want +got):\n%s", err, cmp.Diff(split(s.bytes), split(got[:n])))
	case s.is("reset") && !errors.Is(err, syscall.ECONNRESET) && !told.Load():
		return fmt.Sprintf("want RST, got %v", err)
	case !s.is("reset") && err != nil:
		return err.Error()
	}
	return ""
}

func split(b []byte) []string {
	var lines []string
	for _, l := range strings.SplitAfter(string(b), "\n") {
		lines = append(lines, strconv.Quote(l))
	}
	return lines
}
