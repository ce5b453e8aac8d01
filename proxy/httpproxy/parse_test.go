package httpproxy

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTargets runs testdata/targets.txt.
func TestTargets(t *testing.T) {
	data, err := os.ReadFile("testdata/targets.txt")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for i, row := range strings.Split(string(data), "\n") {
		if row == "" || row[0] == '#' {
			continue
		}
		in, want, ok := strings.Cut(row, " -> ")
		if !ok {
			t.Fatalf("testdata/targets.txt:%d: no arrow", i+1)
		}
		rows++
		b := []byte(in + " HTTP/1.1\r\nHost: a.test\r\n\r\nrest")
		var r request
		n, err := r.parse(b)
		if reason, refused := strings.CutPrefix(want, "! "); refused {
			if err == nil || err.Error() != reason {
				t.Errorf("testdata/targets.txt:%d: %s: got %v, %s; want %s", i+1, in, err, r.Path, reason)
			}
			continue
		}
		if err != nil || string(r.Path) != want {
			t.Errorf("testdata/targets.txt:%d: %s: got %s, %v; want %s", i+1, in, r.Path, err, want)
			continue
		}
		if n != len(b)-len("rest") || string(b[n:]) != "rest" {
			t.Errorf("testdata/targets.txt:%d: %s: parsed %d of %d bytes, rest %q", i+1, in, n, len(b), b[n:])
		}
		method, _, _ := strings.Cut(in, " ")
		if got, want := string(b[:r.size]), method+" "+want+" HTTP/1.1\r\nHost: a.test\r\n\r\n"; got != want {
			t.Errorf("testdata/targets.txt:%d: %s: sent %q, want %q", i+1, in, got, want)
		}
	}
	if rows < 100 {
		t.Errorf("only %d rows", rows)
	}
}

// heads are all that clients and origins say in the conversations, as seeds and as
// input to the tests below.
func heads(t testing.TB) (clients, origins [][]byte) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		for _, talk := range parseTalks(t, file) {
			for _, s := range talk.steps {
				switch s.who {
				case "client":
					clients = append(clients, s.bytes)
				case "answer":
					origins = append(origins, s.bytes)
				}
			}
		}
	}
	return clients, origins
}

// TestPrefixes cuts every head at every place: the beginning alone must be worth
// more bytes, or be refused for the same reason as the whole.
func TestPrefixes(t *testing.T) {
	clients, origins := heads(t)
	for _, whole := range clients {
		checkPrefixes(t, whole, func(b []byte) (int, error) { return new(request).parse(b) })
	}
	for _, whole := range origins {
		req := &request{upgrade: true}
		checkPrefixes(t, whole, func(b []byte) (int, error) { return new(response).parse(b, req) })
	}
}

func checkPrefixes(t *testing.T, whole []byte, parse func([]byte) (int, error)) {
	t.Helper()
	if len(whole) > 4096 {
		return // quadratic
	}
	n, want := parse(bytes.Clone(whole))
	for i := range whole {
		got := bytes.Clone(whole[:i])
		m, err := parse(got)
		switch {
		case err == errMore:
			if !bytes.Equal(got, whole[:i]) {
				t.Errorf("%q was changed to %q before it was whole", whole[:i], got)
			}
		case fmt.Sprint(err) != fmt.Sprint(want) || m != n:
			t.Errorf("%q is %v (%d), %q is %v (%d)", whole, want, n, whole[:i], err, m)
		}
	}
}

// TestChunkCuts gives a chunked body to a framer in two pieces, cut at every place:
// what goes on is the same, and so is the verdict.
func TestChunkCuts(t *testing.T) {
	for _, body := range []string{
		"5\r\nhello\r\n0\r\n\r\n",
		"05;a=b\r\nhello\r\n00a\r\n0123456789\r\n0;x\r\nA:  b \r\nC:d\r\n\r\n",
		"5\r\nhelloX\r\n",
		"5\r\nhello\rX",
		"5\nhello",
		"5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n",
		"g\r\n",
		"5;\x00\r\n",
	} {
		want, rest, err := reframe([]byte(body))
		for i := range body {
			got, gotRest, gotErr := reframe([]byte(body[:i]), []byte(body[i:]))
			if gotErr != err || err == nil && (got != want || gotRest != rest) {
				t.Errorf("%q cut at %d: %q, %q, %v; whole: %q, %q, %v", body, i, got, gotRest, gotErr, want, rest, err)
			}
		}
	}
}

// reframe runs a chunked body that comes in pieces through a framer as the relay does.
func reframe(pieces ...[]byte) (sent, rest string, err error) {
	var f framer
	f.start(chunkedBody, 0)
	var buf []byte
	for _, p := range pieces {
		buf = append(buf, p...)
		out, used, err := f.take(buf)
		if err != nil {
			return "", "", err
		}
		sent += string(buf[:out])
		buf = append([]byte(nil), buf[used:]...)
		if f.done {
			rest = string(buf)
		}
	}
	if !f.done {
		return sent, "", errMore
	}
	return sent, rest, nil
}

const typicalRequest = "GET /public/items/42?page=2&sort=name HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\n" +
	"Connection: keep-alive\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nUpgrade-Insecure-Requests: 1\r\n\r\n"

const typicalResponse = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 15:05:49 GMT\r\nContent-Type: text/plain\r\nContent-Length: 6\r\nConnection: keep-alive\r\n\r\nhello\n"

func TestParseDoesNotAllocate(t *testing.T) {
	var req request
	var resp response
	in, out := []byte(typicalRequest), []byte(typicalResponse)
	chunks := []byte("5;x\r\nhello\r\n0\r\nA: b\r\n\r\n")
	buf := make([]byte, 4096)
	var f framer
	if n := testing.AllocsPerRun(100, func() {
		b := buf[:copy(buf, in)]
		if _, err := req.parse(b); err != nil {
			t.Fatal(err)
		}
		b = buf[:copy(buf, out)]
		if _, err := resp.parse(b, &req); err != nil {
			t.Fatal(err)
		}
		b = buf[:copy(buf, chunks)]
		f.start(chunkedBody, 0)
		if _, _, err := f.take(b); err != nil || !f.done {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParseRequest(b *testing.B) {
	for name, text := range map[string]string{"browser": typicalRequest, "wrk": "GET /public HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"} {
		b.Run(name, func(b *testing.B) {
			var r request
			in := []byte(text)
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.parse(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseResponse(b *testing.B) {
	var req request
	var r response
	in := []byte(typicalResponse)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.parse(in, &req); err != nil {
			b.Fatal(err)
		}
	}
}
