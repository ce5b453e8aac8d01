package httpproxy

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

// maxSeed keeps the conversations about size limits out of the corpus: a fuzzer spends
// its time on making them smaller.
const maxSeed = 4096

// FuzzRequest checks what promise 3 rests on: what is sent for a request parses to
// exactly the request that was judged, is its own canonical form, and a second
// parser, which is net/http's, sees the same in it.
func FuzzRequest(f *testing.F) {
	clients, _ := heads(f)
	for _, b := range clients {
		if len(b) < maxSeed {
			f.Add(b)
		}
	}
	targets, err := os.ReadFile("testdata/targets.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, row := range strings.Split(string(targets), "\n") {
		in, _, _ := strings.Cut(row, " -> ")
		f.Add([]byte(in + " HTTP/1.1\r\nHost: a.test\r\n\r\n"))
	}
	f.Add([]byte(typicalRequest))
	f.Fuzz(func(t *testing.T, in []byte) {
		b := bytes.Clone(in)
		var judged request
		n, err := judged.parse(b)
		if err != nil {
			return
		}
		if judged.size > n {
			t.Fatalf("canonical form of %d bytes is longer than the %d that came", judged.size, n)
		}
		if !bytes.Equal(b[n:], in[n:]) {
			t.Fatalf("bytes behind the head were changed: %q", b[n:])
		}
		sent := bytes.Clone(b[:judged.size])

		var again request
		again2 := bytes.Clone(sent)
		n2, err := again.parse(again2)
		if err != nil || n2 != len(sent) || !bytes.Equal(again2[:again.size], sent) {
			t.Fatalf("%q is not canonical: %v, %q", sent, err, again2[:again.size])
		}
		sameRequest(t, &judged, &again)
		if judged.body != again.body || judged.length != again.length || judged.last != again.last {
			t.Fatalf("framing differs: %+v, %+v", judged, again)
		}
		checkNetHTTP(t, &judged, sent)

		// The body.
		var fr framer
		fr.start(judged.body, judged.length)
		body := bytes.Clone(in[n:])
		out, used, err := fr.take(body)
		if err != nil {
			return
		}
		if out > used {
			t.Fatalf("%d bytes of body became %d", used, out)
		}
		if fr.done && judged.body == chunkedBody {
			got, rest, err := reframe(bytes.Clone(body[:out]))
			if err != nil || rest != "" || got != string(body[:out]) {
				t.Fatalf("%q is not canonical: %q, %q, %v", body[:out], got, rest, err)
			}
		}
	})
}

func sameRequest(t *testing.T, a, b *request) {
	t.Helper()
	if string(a.Method) != string(b.Method) || string(a.Path) != string(b.Path) || string(a.Host) != string(b.Host) ||
		a.Proto != b.Proto || len(a.Header) != len(b.Header) {
		t.Fatalf("judged %s %s %s %s (%d), sent %s %s %s %s (%d)", a.Method, a.Path, a.Host, a.Proto, len(a.Header), b.Method, b.Path, b.Host, b.Proto, len(b.Header))
	}
	for i := range a.Header {
		if !bytes.Equal(a.Header[i].Name, b.Header[i].Name) || !bytes.Equal(a.Header[i].Value, b.Header[i].Value) {
			t.Fatalf("judged %s: %s, sent %s: %s", a.Header[i].Name, a.Header[i].Value, b.Header[i].Name, b.Header[i].Value)
		}
	}
}

// checkNetHTTP compares a request with what net/http reads from the bytes sent for it.
func checkNetHTTP(t *testing.T, judged *request, sent []byte) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(sent)))
	if err != nil {
		// It is stricter than the RFCs about some URLs (a path of "/[" or a query
		// with a space is fine, "/%" in a host is not); nothing of it reaches a rule
		// in another form.
		return
	}
	if r.Method != string(judged.Method) || r.RequestURI != string(judged.Path) {
		t.Fatalf("judged %s %s, net/http reads %s %s", judged.Method, judged.Path, r.Method, r.RequestURI)
	}
	if r.Host != string(judged.Host) {
		t.Fatalf("judged host %s, net/http reads %s", judged.Host, r.Host)
	}
	wantLength := max(judged.length, 0)
	if judged.chunked {
		wantLength = -1
	}
	if r.ContentLength != wantLength {
		t.Fatalf("judged length %d, net/http reads %d", wantLength, r.ContentLength)
	}
	fields := map[string][]string{}
	for _, h := range judged.Header {
		k := http.CanonicalHeaderKey(string(h.Name))
		fields[k] = append(fields[k], string(h.Value))
	}
	for k, got := range r.Header {
		if k == "Transfer-Encoding" || k == "Trailer" {
			continue
		}
		if strings.Join(got, "\n") != strings.Join(fields[k], "\n") {
			t.Fatalf("judged %s: %q, net/http reads %q", k, fields[k], got)
		}
	}
	if path, _, _ := strings.Cut(string(judged.Path), "?"); path != "*" {
		for _, segment := range strings.Split(r.URL.Path, "/") {
			if segment == ".." || segment == "." {
				t.Fatalf("%q has a dot segment when decoded: %q", path, r.URL.Path)
			}
		}
		if strings.Contains(r.URL.Path, "//") || strings.ContainsAny(r.URL.Path, "\x00\\") {
			t.Fatalf("%q decodes to %q", path, r.URL.Path)
		}
	}
}

// FuzzResponse checks the same of responses.
func FuzzResponse(f *testing.F) {
	_, origins := heads(f)
	for _, b := range origins {
		if len(b) < maxSeed {
			f.Add(b, false, false)
			f.Add(b, true, true)
		}
	}
	f.Add([]byte(typicalResponse), false, false)
	f.Fuzz(func(t *testing.T, in []byte, head, is10 bool) {
		req := &request{isHead: head, is10: is10}
		b := bytes.Clone(in)
		var r, again response
		n, err := r.parse(b, req)
		if err != nil {
			return
		}
		sent := bytes.Clone(b[:r.size])
		if r.size > n || !bytes.Equal(b[n:], in[n:]) {
			t.Fatalf("%d bytes became %d, rest %q", n, r.size, b[n:])
		}
		again2 := bytes.Clone(sent)
		n2, err := again.parse(again2, req)
		if err != nil || n2 != len(sent) || !bytes.Equal(again2[:again.size], sent) {
			t.Fatalf("%q is not canonical: %v, %q", sent, err, again2[:again.size])
		}
		if again.status != r.status || again.body != r.body || again.length != r.length || again.last != r.last {
			t.Fatalf("read %+v, sent %+v", r, again)
		}
		method := "GET"
		if head {
			method = "HEAD"
		}
		std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(sent)), &http.Request{Method: method})
		if err != nil {
			return
		}
		if std.StatusCode != r.status {
			t.Fatalf("read status %d, net/http reads %d", r.status, std.StatusCode)
		}
		if r.body == lengthBody && std.ContentLength != r.length {
			t.Fatalf("read length %d, net/http reads %d", r.length, std.ContentLength)
		}
		if chunked := len(std.TransferEncoding) > 0; r.body == chunkedBody && !chunked {
			t.Fatal("read a chunked body, net/http does not")
		}
	})
}

// FuzzChunks gives a chunked body whole and in two pieces, and to net/http what is
// sent for it.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{"5\r\nhello\r\n0\r\n\r\n", "05;a=b\r\nhello\r\n0\r\nA: b\r\n\r\nGET", "fffffffffffffff\r\n", "1\r\n\n\r\n0\r\n\r\n"} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		cut = min(max(cut, 0), len(in))
		want, rest, err := reframe(bytes.Clone(in))
		got, gotRest, gotErr := reframe(bytes.Clone(in[:cut]), bytes.Clone(in[cut:]))
		if err == errMore {
			return
		}
		if gotErr != err && gotErr != errMore || err == nil && (got != want || gotRest != rest) {
			t.Fatalf("whole %q %q %v, cut %q %q %v", want, rest, err, got, gotRest, gotErr)
		}
		if err != nil {
			return
		}
		if twice, rest, err := reframe([]byte(want)); err != nil || rest != "" || twice != want {
			t.Fatalf("%q is not canonical: %q %q %v", want, twice, rest, err)
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + want)))
		if err != nil {
			t.Fatal(err)
		}
		std, err := io.ReadAll(r.Body)
		if err != nil {
			return // trailers that it does not want
		}
		if ours := content(want); ours != string(std) {
			t.Fatalf("body is %q, net/http reads %q", ours, std)
		}
	})
}

// content decodes a canonical chunked body.
func content(s string) string {
	var all strings.Builder
	for {
		line, rest, _ := strings.Cut(s, "\r\n")
		var n int
		for i := range len(line) {
			n = n<<4 | unhex(line[i])
		}
		if n == 0 {
			return all.String()
		}
		all.WriteString(rest[:n])
		s = rest[n+2:]
	}
}
