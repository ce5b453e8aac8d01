package httpproxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// accept takes the connection that the proxy makes.
func (b *bench) accept(t testing.TB) *net.TCPConn {
	t.Helper()
	b.origin.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := b.origin.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

func send(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func expect(t testing.TB, c net.Conn, s string) {
	t.Helper()
	got := make([]byte, len(s))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != s {
		t.Fatalf("got %q, %v; want %q", got[:n], err, s)
	}
}

func expectReset(t testing.TB, c net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %q, %v; want a RST", b, err)
	}
}

const (
	get   = "GET /public HTTP/1.1\r\nHost: a.test\r\n\r\n"
	okay  = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	large = 256 << 20
)

func TestClientResetWhileWaiting(t *testing.T) {
	b := newBench(t, judge)
	client := b.dial(t)
	send(t, client, get)
	up := b.accept(t)
	expect(t, up, get)
	client.SetLinger(0)
	client.Close()
	expectReset(t, up)
}

func TestClientClosesWhileWaiting(t *testing.T) {
	b := newBench(t, judge)
	client := b.dial(t)
	send(t, client, get)
	up := b.accept(t)
	expect(t, up, get)
	client.Close()
	if n, err := up.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("origin read %d, %v; want the FIN", n, err)
	}
	// To what the origin sends now the client's system answers with a RST.
	send(t, up, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
	for {
		if _, err := up.Write(make([]byte, 1000)); err != nil {
			return
		}
	}
}

const bigHead = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"

func TestClientResetWhileDownloading(t *testing.T) {
	b := newBench(t, judge)
	client := b.dial(t)
	send(t, client, get)
	up := b.accept(t)
	expect(t, up, get)
	send(t, up, bigHead)
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := up.Write(make([]byte, 64<<10)); err != nil {
				done <- err
				return
			}
		}
	}()
	expect(t, client, bigHead)
	io.CopyN(io.Discard, client, 1<<20)
	client.SetLinger(0)
	client.Close()
	if err := <-done; errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the origin did not notice")
	}
}

// A download that breaks off does not look like one that ended.
func TestUpstreamResetWhileDownloading(t *testing.T) {
	b := newBench(t, judge)
	client := b.dial(t)
	send(t, client, get)
	up := b.accept(t)
	expect(t, up, get)
	const head = "HTTP/1.1 200 OK\r\n\r\n" // until the end of the connection
	send(t, up, head)
	up.Write(make([]byte, 1<<20))
	expect(t, client, head)
	io.CopyN(io.Discard, client, 1<<20)
	up.SetLinger(0)
	up.Close()
	expectReset(t, client)
}

func TestClientResetWhileUploading(t *testing.T) {
	b := newBench(t, judge)
	client := b.dial(t)
	const head = "POST /public HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000000\r\n\r\n"
	send(t, client, head)
	client.Write(make([]byte, 1<<20))
	up := b.accept(t)
	expect(t, up, head)
	io.CopyN(io.Discard, up, 1<<20)
	client.SetLinger(0)
	client.Close()
	expectReset(t, up)
}

func TestUpstreamResetWhileIdle(t *testing.T) {
	b := newBench(t, judge)
	client := b.dial(t)
	send(t, client, get)
	up := b.accept(t)
	expect(t, up, get)
	send(t, up, okay)
	expect(t, client, okay)
	up.SetLinger(0)
	up.Close()
	if n, err := client.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, syscall.ETIMEDOUT) {
		t.Fatalf("client read %d, %v; want the end", n, err)
	}
}

// A policy that changes judges the next request on an open connection.
func TestJudgeChanges(t *testing.T) {
	var denying atomic.Bool
	b := newBench(t, func(req flow.Request) l7rules.Decision {
		if denying.Load() {
			return l7rules.Decision{Reason: "reloaded"}
		}
		return l7rules.Decision{Verdict: flow.Forwarded}
	})
	client := b.dial(t)
	send(t, client, get)
	up := b.accept(t)
	expect(t, up, get)
	send(t, up, okay)
	expect(t, client, okay)
	denying.Store(true)
	send(t, client, get)
	expect(t, client, "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 15\r\nX-Weir-Reason: reloaded\r\n\r\nAccess denied\r\n")
}

// A reason cannot break out of its header.
func TestReasonIsPrintable(t *testing.T) {
	b := newBench(t, func(flow.Request) l7rules.Decision {
		return l7rules.Decision{Reason: "a\r\nSet-Cookie: b\x00\xff" + strings.Repeat("x", 1000)}
	})
	client := b.dial(t)
	send(t, client, get)
	r, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Header.Get("X-Weir-Reason"); len(got) != maxReason || !strings.HasPrefix(got, "a??Set-Cookie: b??xxx") {
		t.Errorf("reason is %q", got)
	}
	if r.Header.Get("Set-Cookie") != "" {
		t.Error("the reason set a cookie")
	}
}

// The zero decision denies.
func TestZeroDecision(t *testing.T) {
	b := newBench(t, func(flow.Request) l7rules.Decision { return l7rules.Decision{} })
	client := b.dial(t)
	send(t, client, get)
	expect(t, client, "HTTP/1.1 403 Forbidden\r\n")
}

func TestUpstreamRefuses(t *testing.T) {
	b := newBench(t, judge)
	b.origin.Close()
	client := b.dial(t)
	send(t, client, get)
	r, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != 502 || !strings.Contains(string(body), "connection refused") || !r.Close {
		t.Errorf("got %d, %q, %v", r.StatusCode, body, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.records) != 2 || b.records[0] != "FORWARDED HTTP/1.1 GET http://a.test/public" ||
		!strings.HasPrefix(b.records[1], "ERROR HTTP/1.1 GET http://a.test/public: connect to ") {
		t.Errorf("records are %q", b.records)
	}
}

// An origin that answers and closes while the body is still coming gets its answer through.
func TestEarlyAnswerAndClose(t *testing.T) {
	b := newBench(t, judge)
	client := b.dial(t)
	send(t, client, "POST /public HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000000\r\n\r\n")
	up := b.accept(t)
	expect(t, up, "POST /public HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000000\r\n\r\n")
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for {
			if _, err := client.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	io.CopyN(io.Discard, up, 1<<20)
	const answer = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	send(t, up, answer)
	up.Close()
	expect(t, client, answer)
	client.Close()
	<-stop
}

// Both directions of one exchange move at once: an origin that answers as it reads
// must not wait for a body that waits for the answer.
func TestEchoWhileUploading(t *testing.T) {
	b := newBench(t, judge)
	const size = 16 << 20
	go func() {
		up, err := b.origin.Accept()
		if err != nil {
			return
		}
		defer up.Close()
		r := bufio.NewReader(up)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		fmt.Fprintf(up, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		io.Copy(up, req.Body)
	}()
	client := b.dial(t)
	client.SetDeadline(time.Now().Add(time.Minute))
	sent, received := sha256.New(), sha256.New()
	go func() {
		fmt.Fprintf(client, "POST /public HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n")
		chunk := make([]byte, 50000)
		source := rand.NewChaCha8([32]byte{1})
		for left := size; left > 0; {
			n := min(left, len(chunk))
			source.Read(chunk[:n])
			sent.Write(chunk[:n])
			fmt.Fprintf(client, "%x\r\n%s\r\n", n, chunk[:n])
			left -= n
		}
		fmt.Fprint(client, "0\r\n\r\n")
	}()
	r, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(received, r.Body); n != size || err != nil {
		t.Fatalf("echoed %d of %d: %v", n, size, err)
	}
	same(t, sent, received)
}

func same(t *testing.T, a, b hash.Hash) {
	t.Helper()
	if !bytes.Equal(a.Sum(nil), b.Sum(nil)) {
		t.Error("what arrived is not what was sent")
	}
}

// TestLargeBodies moves 256 MiB each way, with a length and in chunks, and bounds
// the memory that client, proxy and origin together come to.
func TestLargeBodies(t *testing.T) {
	if testing.Short() {
		t.Skip("moves a gigabyte")
	}
	for _, framing := range []string{"length", "chunked"} {
		for _, way := range []string{"upload", "download"} {
			t.Run(way+" with "+framing, func(t *testing.T) { moveLarge(t, way, framing) })
		}
	}
}

func moveLarge(t *testing.T, way, framing string) {
	b := newBench(t, judge)
	from, to := "client", "origin"
	if way == "download" {
		from, to = to, from
	}
	results := make(chan error, 2)
	sums := map[string]hash.Hash{from: sha256.New(), to: sha256.New()}
	write := func(c net.Conn, start string) error {
		w := bufio.NewWriterSize(c, 64<<10)
		body := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{2}), large), sums[from])
		if framing == "length" {
			fmt.Fprintf(w, "%sContent-Length: %d\r\n\r\n", start, large)
			if _, err := io.Copy(w, body); err != nil {
				return err
			}
			return w.Flush()
		}
		fmt.Fprintf(w, "%sTransfer-Encoding: chunked\r\n\r\n", start)
		chunk := make([]byte, 100000)
		for {
			n, err := io.ReadFull(body, chunk)
			if n > 0 {
				fmt.Fprintf(w, "%x\r\n%s\r\n", n, chunk[:n])
			}
			if err != nil {
				break
			}
		}
		fmt.Fprint(w, "0\r\n\r\n")
		return w.Flush()
	}
	go func() {
		c, err := b.origin.Accept()
		if err != nil {
			results <- err
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			results <- err
			return
		}
		if way == "upload" {
			_, err = io.Copy(sums[to], req.Body)
			io.WriteString(c, okay)
		} else {
			err = write(c, "HTTP/1.1 200 OK\r\n")
		}
		results <- err
	}()
	client := b.dial(t)
	client.SetDeadline(time.Now().Add(5 * time.Minute))
	peak := watchMemory(t)
	go func() {
		if way == "upload" {
			results <- write(client, "POST /public HTTP/1.1\r\nHost: a.test\r\n")
		} else {
			_, err := io.WriteString(client, get)
			results <- err
		}
	}()
	r, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatal(err)
	}
	if way == "download" {
		if n, err := io.Copy(sums[to], r.Body); n != large || err != nil {
			t.Fatalf("received %d of %d: %v", n, large, err)
		}
	}
	for range 2 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	same(t, sums[from], sums[to])
	if got := peak(); got > 16<<20 {
		t.Errorf("the heap grew by %d KiB", got>>10)
	}
}

// watchMemory samples the heap until the function it returns is called, which tells by
// how much it grew at most.
func watchMemory(t *testing.T) func() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	start := m.HeapInuse
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		var top uint64
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				runtime.ReadMemStats(&m)
				top = max(top, m.HeapInuse)
			case <-stop:
				peak <- top
				return
			}
		}
	}()
	return func() uint64 {
		close(stop)
		top := <-peak
		return top - min(start, top)
	}
}
