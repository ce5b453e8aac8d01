package flow

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// plain is a request whose text and JSON are as they are.
type plain string

func (plain) Type() string { return "http-request" }
func (p plain) AppendText(dst []byte) []byte {
	return AppendEscaped(append(dst, "HTTP/1.1 GET "...), string(p))
}
func (p plain) AppendJSON(dst []byte) []byte {
	return append(AppendJSONString(append(dst, `{"url":`...), string(p)), '}')
}

func record() *Record {
	return &Record{
		Time:        time.Date(2025, 11, 3, 14, 37, 1, 23_000_000, time.UTC),
		Verdict:     Dropped,
		Source:      Party{Name: "default/curl", Identity: 256, Addr: netip.MustParseAddrPort("127.0.0.1:43210"), PID: 77, Comm: "curl"},
		Destination: Party{Name: "host", Identity: 1, Addr: netip.MustParseAddrPort("127.0.0.1:8080")},
		Type:        "http-request",
		Request:     plain("http://127.0.0.1:8080/denied"),
		Reason:      "no rule allows GET /denied",
	}
}

func TestAppendCompact(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Record)
		want   string
	}{
		{"denied", func(*Record) {},
			"Nov  3 14:37:01.023: default/curl:43210 (ID:256) -> 127.0.0.1:8080 (ID:1) http-request DROPPED (HTTP/1.1 GET http://127.0.0.1:8080/denied) no rule allows GET /denied"},
		{"allowed by a rule", func(r *Record) { r.Verdict, r.Policy, r.Reason = Forwarded, "default/p[egress 0]", "" },
			"Nov  3 14:37:01.023: default/curl:43210 (ID:256) -> 127.0.0.1:8080 (ID:1) http-request FORWARDED (HTTP/1.1 GET http://127.0.0.1:8080/denied) policy=default/p[egress 0]"},
		{"policy with its word", func(r *Record) { r.Policy, r.Reason = "policy=default/p[egressDeny 0]", "" },
			"Nov  3 14:37:01.023: default/curl:43210 (ID:256) -> 127.0.0.1:8080 (ID:1) http-request DROPPED (HTTP/1.1 GET http://127.0.0.1:8080/denied) policy=default/p[egressDeny 0]"},
		{"connection", func(r *Record) { r.Request, r.Type, r.Verdict = nil, "tcp-connect", Audit },
			"Nov  3 14:37:01.023: default/curl:43210 (ID:256) -> 127.0.0.1:8080 (ID:1) tcp-connect AUDIT no rule allows GET /denied"},
		{"IPv6", func(r *Record) {
			r.Request, r.Type, r.Reason = nil, "tcp-connect", ""
			r.Destination.Addr = netip.MustParseAddrPort("[2001:db8::1]:443")
			r.Source = Party{Addr: netip.MustParseAddrPort("[fe80::1%eth 0]:1")}
		}, `Nov  3 14:37:01.023: [fe80::1%eth\x200]:1 (ID:0) -> [2001:db8::1]:443 (ID:1) tcp-connect DROPPED`},
		{"nothing known", func(r *Record) { *r = Record{Verdict: Error} },
			"Jan  1 00:00:00.000: unknown (ID:0) -> unknown (ID:0) unknown ERROR"},
		{"entity without address", func(r *Record) { *r = Record{Destination: Party{Name: "world", Identity: 2}, Request: plain("x")} },
			"Jan  1 00:00:00.000: unknown (ID:0) -> world (ID:2) http-request DROPPED (HTTP/1.1 GET x)"},
	} {
		r := record()
		c.change(r)
		if got := string(r.AppendCompact(nil)); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestAppendJSON(t *testing.T) {
	const want = `{"time":"2025-11-03T14:37:01.023000000Z","verdict":"DROPPED","direction":"egress","type":"http-request",` +
		`"source":{"identity":256,"name":"default/curl","address":"127.0.0.1","port":43210,"pid":77,"comm":"curl"},` +
		`"destination":{"identity":1,"name":"host","address":"127.0.0.1","port":8080},` +
		`"request":{"url":"http://127.0.0.1:8080/denied"},"policy":"default/p[egress 0]","reason":"no rule allows GET /denied"}`
	r := record()
	r.Policy = "default/p[egress 0]"
	if got := string(r.AppendJSON(nil)); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	var zero Record
	if data := zero.AppendJSON(nil); !json.Valid(data) || !strings.Contains(string(data), `"verdict":"DROPPED"`) {
		t.Errorf("zero record %s", data)
	}
}

// hostile fills every field that somebody else may choose.
func hostile(s string) *Record {
	r := record()
	r.Source.Name, r.Source.Comm, r.Destination.Name, r.Type, r.Policy, r.Reason = s, s, "ns/"+s, s, s, s
	r.Request = plain(s)
	return r
}

func FuzzAppend(f *testing.F) {
	for _, s := range []string{"", "\n", "a\r\nb", "\x00", "\x1b[2J", `"`, `\`, "\xff", "é", "\u2028", "\u0085", "\u202e", ") policy=default/x[egress 0]", "\xed\xa0\x80", "\xf0\x9f\x98", "a\tb\x7f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := hostile(s)
		line := r.AppendCompact(nil)
		for _, c := range line {
			if c < ' ' || c > '~' {
				t.Fatalf("byte %#x in %q", c, line)
			}
		}
		// What comes before the verdict and the summary are words without blanks: nothing
		// in them can look like what follows.
		if n := strings.Count(string(line[:len(line)-len(appendSentence(appendSentence(nil, r.rule()), r.Reason))]), ") policy="); n > 1 {
			t.Fatalf("forged in %q", line)
		}
		data := r.AppendJSON(nil)
		if !utf8.Valid(data) {
			t.Fatalf("no UTF-8: %q", data)
		}
		for _, c := range data {
			if c < ' ' || c == 0x7f {
				t.Fatalf("byte %#x in %q", c, data)
			}
		}
		var v struct {
			Reason string
			Source struct{ Name, Comm string }
		}
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && (v.Reason != want || v.Source.Comm != want) {
			t.Fatalf("%q became %q", s, v.Reason)
		}
	})
}

func TestAppendAllocatesNothing(t *testing.T) {
	r := record()
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf = r.AppendCompact(buf[:0]) }); n != 0 {
		t.Errorf("AppendCompact: %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { buf = r.AppendJSON(buf[:0]) }); n != 0 {
		t.Errorf("AppendJSON: %v allocations", n)
	}
}

func TestWords(t *testing.T) {
	for v, want := range map[Verdict]string{Dropped: "DROPPED", Forwarded: "FORWARDED", Audit: "AUDIT", Error: "ERROR", 9: "DROPPED"} {
		if v.String() != want {
			t.Errorf("%d is %s", v, v)
		}
	}
	if Egress.String() != "egress" || Ingress.String() != "ingress" {
		t.Error("directions")
	}
}
