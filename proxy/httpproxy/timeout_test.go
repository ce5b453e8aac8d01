package httpproxy

import (
	"context"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/weir-proxy/weir/proxy"
)

// A head that does not end is answered and cut off; who says nothing is cut off; who has
// an upstream is left to it.
func TestTimeouts(t *testing.T) {
	short := func(l limits) *bench {
		return newBenchOf(t, judge, func(ctx context.Context, s *proxy.Session) error { return handle(ctx, s, l) })
	}
	const never = time.Hour
	t.Run("head", func(t *testing.T) {
		b := short(limits{head: 20 * time.Millisecond, idle: never})
		client := b.dial(t)
		send(t, client, "GET /public HTTP/1.1\r\nHost: a")
		expect(t, client, "HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain\r\nContent-Length: 39\r\n"+
			"X-Weir-Reason: client took too long\r\nConnection: close\r\n\r\nRequest Timeout: client took too long\r\n")
		client.Close()
		b.mu.Lock()
		defer b.mu.Unlock()
		if !slices.Equal(b.records, []string{"ERROR: client took too long"}) {
			t.Errorf("records %q", b.records)
		}
	})
	t.Run("first byte", func(t *testing.T) {
		b := short(limits{head: never, idle: 20 * time.Millisecond})
		client := b.dial(t)
		if rest, err := io.ReadAll(client); len(rest) > 0 || err != nil {
			t.Errorf("got %q, %v", rest, err)
		}
		if len(b.records) > 0 {
			t.Errorf("records %q", b.records)
		}
	})
	t.Run("between requests without an upstream", func(t *testing.T) {
		b := short(limits{head: never, idle: 50 * time.Millisecond})
		client := b.dial(t)
		send(t, client, "GET /secret HTTP/1.1\r\nHost: a.test\r\n\r\n")
		if rest, err := io.ReadAll(client); len(rest) == 0 || err != nil {
			t.Errorf("got %q, %v", rest, err)
		}
	})
	t.Run("a slow server is not the client's fault", func(t *testing.T) {
		b := short(limits{head: 20 * time.Millisecond, idle: 20 * time.Millisecond})
		client := b.dial(t)
		send(t, client, get)
		up := b.accept(t)
		expect(t, up, get)
		client.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := client.Read(make([]byte, 1)); n > 0 || err == io.EOF {
			t.Fatalf("read %d, %v", n, err)
		}
		client.SetReadDeadline(time.Now().Add(patience))
		send(t, up, okay)
		expect(t, client, okay)
		// Nor is it cut off while it keeps the connection for later.
		client.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := client.Read(make([]byte, 1)); n > 0 || err == io.EOF {
			t.Fatalf("read %d, %v", n, err)
		}
		client.SetReadDeadline(time.Now().Add(patience))
		send(t, client, get)
		expect(t, up, get)
	})
}
