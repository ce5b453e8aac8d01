package l7rules

import (
	"encoding/json"
	"testing"
	"unicode/utf8"
)

func TestHTTPRequestText(t *testing.T) {
	for _, c := range []struct {
		method, path, host, text, url string
	}{
		{"GET", "/a?b", "h:80", "HTTP/1.1 GET http://h:80/a?b", "http://h:80/a?b"},
		{"GET", "/a", "", "HTTP/1.1 GET /a", "/a"},
		{"OPTIONS", "*", "h", "HTTP/1.1 OPTIONS *", "*"},
		{"GET", "/a) policy=x\nb", "h", `HTTP/1.1 GET http://h/a)\x20policy=x\x0ab`, "http://h/a) policy=x\nb"},
		{"G\"T", "/\\\xff\u00e9", "h\x1b", `HTTP/1.1 G"T http://h\x1b/\\\xff\xc3\xa9`, "http://h\x1b/\\\ufffd\u00e9"},
	} {
		r := &HTTPRequest{Proto: "HTTP/1.1", Method: []byte(c.method), Path: []byte(c.path), Host: []byte(c.host),
			Header: []HeaderField{{[]byte("Authorization"), []byte("secret")}}}
		if got := string(r.AppendText(nil)); got != c.text {
			t.Errorf("text %q, want %q", got, c.text)
		}
		var v struct{ Protocol, Method, URL string }
		data := r.AppendJSON([]byte{})
		if err := json.Unmarshal(data, &v); err != nil {
			t.Errorf("%s: %v", data, err)
		}
		if v.URL != c.url || v.Method != c.method || v.Protocol != "HTTP/1.1" || !utf8.Valid(data) {
			t.Errorf("JSON %s", data)
		}
	}
}
