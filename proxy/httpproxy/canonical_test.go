package httpproxy

import "testing"

func TestCanonical(t *testing.T) {
	r, err := Canonical([]byte("GET /a/../%61dmin?x HTTP/1.1\r\nHost: EXAMPLE.com\r\nX-Token:  42\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(r.AppendText(nil)); got != "HTTP/1.1 GET http://example.com/admin?x" {
		t.Errorf("request %s", got)
	}
	if len(r.Header) == 0 || string(r.Header[len(r.Header)-1].Value) != "42" {
		t.Errorf("fields %q", r.Header)
	}
	for _, head := range []string{"", "GET /", "GET /a%2fb HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET"} {
		if _, err := Canonical([]byte(head)); err == nil {
			t.Errorf("Canonical(%q): no error", head)
		}
	}
}
