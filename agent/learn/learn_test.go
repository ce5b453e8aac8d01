package learn

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/cnp"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// Each file of testdata holds what an endpoint did, the policy of it, and what that does
// not let through.
func TestPolicy(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			part := map[string]string{}
			for _, f := range a.Files {
				part[f.Name] = string(f.Data)
			}
			var b Book
			n := 0
			sink := b.Sink(func(*flow.Record) { n++ })
			did := strings.Split(strings.TrimSpace(part["did"]), "\n")
			for _, line := range did {
				sink(record(t, line))
			}
			if n != len(did) {
				t.Errorf("%d records went on, of %d", n, len(did))
			}
			text, err := b.Policy("learned", nil, "")
			if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(part["policy"], string(text)); diff != "" {
				t.Errorf("policy (-want +got):\n%s", diff)
			}
			policies, _, err := cnp.Parse("learned", text)
			if err != nil {
				t.Fatal(err)
			}
			self, _ := identity.Workload("")
			compiled, err := l7rules.Compile(policies, self)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(part["refused"]) {
				r := record(t, strings.TrimSpace(line))
				peer := l7rules.Peer{ID: identity.Host}
				if r.Destination.Identity != uint32(identity.Host) {
					peer = l7rules.PeerOf(r.Destination.Addr.Addr(), compiled.Prefixes(flow.Egress))
				}
				proto := l7rules.ProtoTCP
				if r.Type == "udp-send" {
					proto = l7rules.ProtoUDP
				}
				e := compiled.Lookup(flow.Egress, peer, proto, r.Destination.Addr.Port())
				if e.Action == l7rules.ActionAllow || e.Action == l7rules.ActionRedirect && e.Rules.Decide(r.Request).Allowed() {
					t.Errorf("it lets through: %s", line)
				}
			}
		})
	}
}

// record reads "tcp WHERE:PORT", "udp WHERE:PORT" or "http WHERE:PORT METHOD PATH [HOST]".
func record(t *testing.T, line string) *flow.Record {
	t.Helper()
	f := append(strings.Fields(line), "")
	where, port, _ := strings.Cut(f[1], ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	r := &flow.Record{Verdict: flow.Forwarded, Type: "tcp-connect"}
	if where == "host" {
		r.Destination = flow.Party{Identity: uint32(identity.Host), Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(n))}
	} else {
		r.Destination = flow.Party{Identity: uint32(identity.WorldIPv4), Addr: netip.AddrPortFrom(netip.MustParseAddr(where), uint16(n))}
	}
	switch f[0] {
	case "udp":
		r.Type = "udp-send"
	case "http":
		r.Type = "http-request"
		r.Request = &l7rules.HTTPRequest{Proto: "HTTP/1.1", Method: []byte(f[2]), Path: []byte(f[3]), Host: []byte(f[4])}
	}
	return r
}

// What does not count: what was refused, what came in, and the endpoint's talk with itself.
func TestNotNoted(t *testing.T) {
	var b Book
	sink := b.Sink(func(*flow.Record) {})
	for _, change := range []func(*flow.Record){
		func(r *flow.Record) { r.Verdict = flow.Dropped },
		func(r *flow.Record) { r.Verdict = flow.Error },
		func(r *flow.Record) { r.Direction = flow.Ingress },
		func(r *flow.Record) { r.Destination.Identity = uint32(identity.FirstEndpoint) },
		func(r *flow.Record) { r.Type = "socket" },
	} {
		r := record(t, "tcp host:80")
		change(r)
		sink(r)
	}
	if len(b.dests) != 0 {
		t.Errorf("noted: %v", b.dests)
	}
	if text, err := b.Policy("learned", []string{"a=b"}, "a\nb"); err != nil || !strings.HasPrefix(string(text), "# a\n# b\napi") ||
		!strings.HasSuffix(string(text), "    matchLabels:\n      'a': 'b'\n  egress: [{}] # it reached nobody\n") {
		t.Errorf("%s%v", text, err)
	}
}

// However many requests there are, the book is bounded, and what it writes covers them.
func TestManyRequests(t *testing.T) {
	var b Book
	sink := b.Sink(func(*flow.Record) {})
	for i := range 3 * maxRequests {
		sink(record(t, fmt.Sprintf("http host:80 GET /%c/f%d.html", 'a'+i%3, i)))
		sink(record(t, fmt.Sprintf("http host:80 GET /q?n=%d", i)))
	}
	text, err := b.Policy("learned", nil, "")
	if err != nil {
		t.Error(err)
	}
	for _, did := range b.dests {
		if len(did.requests) > maxRequests+10 {
			t.Errorf("%d requests noted", len(did.requests))
		}
	}
	if n := strings.Count(string(text), "method:"); n > 8 {
		t.Errorf("%d rules:\n%s", n, text)
	}
}
