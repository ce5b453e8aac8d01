package l7rules

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

func TestRequestsInWords(t *testing.T) {
	for _, c := range []struct {
		req       flow.Request
		typ, text string
		json      string
	}{
		{&DNSQuery{"a.test.", 1}, "dns-request", "DNS Query a.test. A", `{"query":"a.test.","qtypes":["A"]}`},
		{&DNSQuery{"a\n\"b", 4711}, "dns-request", `DNS Query a\x0a"b TYPE4711`, `{"query":"a\n\"b","qtypes":["TYPE4711"]}`},
		{&ClientHello{"a.test"}, "tls-request", "TLS ClientHello a.test", `{"server_name":"a.test"}`},
		{&ClientHello{}, "tls-request", "TLS ClientHello", `{"server_name":""}`},
		{&KafkaRequest{APIKey: 0, APIVersion: 9, CorrelationID: 7, ClientID: "c", Resource: KafkaTopic, Name: "orders"}, "kafka-request",
			"Kafka request produce v9 correlation id 7 topic 'orders'",
			`{"api_version":9,"api_key":"produce","correlation_id":7,"topic":"orders","client_id":"c"}`},
		{&KafkaRequest{APIKey: 11, Resource: KafkaGroup, Name: "g'\x1b"}, "kafka-request",
			`Kafka request joingroup v0 correlation id 0 group 'g'\x1b'`, "{\"api_version\":0,\"api_key\":\"joingroup\",\"correlation_id\":0,\"group\":\"g'\\u001b\"}"},
		{&KafkaRequest{APIKey: 26, Resource: KafkaTransaction, Name: "x"}, "kafka-request",
			"Kafka request endtxn v0 correlation id 0 transactional id 'x'", `{"api_version":0,"api_key":"endtxn","correlation_id":0,"transactional_id":"x"}`},
		{&KafkaRequest{APIKey: 9999, CorrelationID: -1}, "kafka-request", "Kafka request 9999 v0 correlation id -1 cluster", `{"api_version":0,"api_key":"9999","correlation_id":-1}`},
		{&KafkaRequest{APIKey: 18, Resource: KafkaNone}, "kafka-request", "Kafka request apiversions v0 correlation id 0", `{"api_version":0,"api_key":"apiversions","correlation_id":0}`},
		{&GRPCRequest{HTTPRequest{Proto: "HTTP/2", Method: []byte("POST"), Path: []byte("/shop.Orders/Get"), Host: []byte("h")}}, "grpc-request",
			"gRPC shop.Orders/Get", `{"protocol":"HTTP/2","method":"POST","url":"http://h/shop.Orders/Get"}`},
		{&GRPCRequest{HTTPRequest{Proto: "HTTP/2", Method: []byte("POST"), Path: []byte("/a b")}}, "grpc-request",
			`gRPC /a\x20b`, `{"protocol":"HTTP/2","method":"POST","url":"/a b"}`},
	} {
		if c.req.Type() != c.typ {
			t.Errorf("%T has type %s", c.req, c.req.Type())
		}
		if got := string(c.req.AppendText(nil)); got != c.text {
			t.Errorf("text %s, want %s", got, c.text)
		}
		if got := c.req.AppendJSON(nil); string(got) != c.json || !json.Valid(got) {
			t.Errorf("JSON %s, want %s", got, c.json)
		}
	}
	for _, name := range []string{"A", "AAAA", "TYPE4711"} {
		n, ok := QTypeNumber(name)
		if got := string(appendQType(nil, n)); !ok || got != name {
			t.Errorf("%s is %d, %v, which is %s", name, n, ok, got)
		}
	}
	for _, name := range []string{"", "a", "TYPE", "TYPE-1", "TYPE65536"} {
		if n, ok := QTypeNumber(name); ok {
			t.Errorf("%q is type %d", name, n)
		}
	}
	for _, name := range KafkaAPINames() {
		if key, ok := KafkaAPIKey(strings.ToUpper(name)); !ok || KafkaAPIName(key) != name {
			t.Errorf("%s is key %d", name, key)
		}
	}
	if _, ok := KafkaAPIKey(""); ok || KafkaAPIName(-1) != "-1" {
		t.Error("a request without a name has one")
	}
}

// A request of one protocol gets nothing from the rules of another, nor does one that is
// not there.
func TestProtocolsStayApart(t *testing.T) {
	everybody := Peers{Any: true}
	name, err := match.CompileNamePattern("*")
	if err != nil {
		t.Fatal(err)
	}
	tcp := func(port uint16) []PortRange { return []PortRange{{ProtoTCP, port, port}} }
	ep := compile(t, Rule{Peers: everybody, Ports: []PortRule{
		{Ports: tcp(80), Protocol: HTTP, HTTP: []HTTPRule{{}}},
		{Ports: tcp(53), Protocol: DNS, DNS: []NameRule{{Name: name}}},
		{Ports: tcp(443), Protocol: TLS, TLS: []NameRule{{Name: name}}},
		{Ports: tcp(9092), Protocol: Kafka, Kafka: []KafkaRule{{}}},
	}})
	requests := map[uint16][]flow.Request{80: {&HTTPRequest{}, &GRPCRequest{}}, 53: {&DNSQuery{Name: "a.test"}}, 443: {&ClientHello{"a.test"}}, 9092: {&KafkaRequest{}}}
	for port := range requests {
		e := ep.Lookup(flow.Egress, Peer{ID: identity.World}, ProtoTCP, port)
		for other, list := range requests {
			for _, r := range list {
				if d := e.Rules.Decide(r); d.Allowed() != (port == other) || d.Reason == "" && d.Policy == "" {
					t.Errorf("%T to port %d: %+v", r, port, d)
				}
			}
		}
		for _, r := range []flow.Request{nil, (*HTTPRequest)(nil), (*GRPCRequest)(nil), (*DNSQuery)(nil), (*ClientHello)(nil), (*KafkaRequest)(nil)} {
			if d := e.Rules.Decide(r); d.Allowed() {
				t.Errorf("%T to port %d: %+v", r, port, d)
			}
		}
		if e.Rules.NeverRefuses() {
			t.Errorf("the rules of port %d never refuse", port)
		}
	}
	if (*Ruleset)(nil).NeverRefuses() || (&Ruleset{}).NeverRefuses() {
		t.Error("a Ruleset without rules never refuses")
	}
}

// Whatever is in the names that a request shows, the reason is one line of ASCII.
func TestReasonsOfNamesAreSafe(t *testing.T) {
	name, err := match.CompileName("a.test")
	if err != nil {
		t.Fatal(err)
	}
	for protocol, pr := range map[Protocol]PortRule{
		DNS: {DNS: []NameRule{{Name: name}}}, TLS: {TLS: []NameRule{{Name: name}}},
		Kafka: {Kafka: []KafkaRule{{ClientID: "\x1b", Topic: KafkaName{Value: "t\n"}}, {Topic: KafkaName{Value: "\x00"}}}},
	} {
		pr.Protocol, pr.Ports = protocol, []PortRange{{ProtoTCP, 80, 80}}
		rs := compile(t, Rule{Peers: Peers{Any: true}, Ports: []PortRule{pr}}).Lookup(flow.Egress, Peer{ID: identity.World}, ProtoTCP, 80).Rules
		for _, s := range []string{"\r\nx", "\x1b[2J", "\xff", "\u202e", strings.Repeat("x.", 5000), ".", "..", ""} {
			for _, r := range []flow.Request{&DNSQuery{Name: s}, &ClientHello{s}, &KafkaRequest{Resource: KafkaTopic, Name: s, ClientID: s}, &KafkaRequest{APIKey: 11, Resource: KafkaCluster, ClientID: s}} {
				d := rs.Decide(r)
				if d.Allowed() || d.Reason == "" || len(d.Reason) > 1000 || strings.ContainsFunc(d.Reason, func(c rune) bool { return c < ' ' || c > '~' }) {
					t.Errorf("%T %.20q by %s: %+v", r, s, protocol, d)
				}
			}
		}
	}
}

// Rules in two protocols for one peer and port, where one policy only audits: it gives way.
func TestTwoProtocolsOneAudits(t *testing.T) {
	host, all := Peers{Entities: []Entity{EntityHost}}, Peers{Entities: []Entity{EntityAll}}
	kafka := []PortRule{{Ports: []PortRange{{ProtoTCP, 80, 80}}, Protocol: Kafka, Kafka: []KafkaRule{{}}}}
	get := &HTTPRequest{Method: []byte("GET"), Path: []byte("/")}
	post := &HTTPRequest{Method: []byte("POST"), Path: []byte("/")}
	http := http80(HTTPRule{Method: testPattern("GET")})
	for name, c := range map[string]struct {
		httpAudits, kafkaAudits bool
		closed                  bool // by a third policy
		get, post               flow.Verdict
	}{
		"nobody audits":          {false, false, true, flow.Dropped, flow.Dropped},
		"kafka audits":           {false, true, true, flow.Forwarded, flow.Dropped},
		"both audit":             {true, true, false, flow.Audit, flow.Audit},
		"both audit, and closed": {true, true, true, flow.Dropped, flow.Dropped},
	} {
		policies := []*Policy{
			{Name: "a", Rules: []Rule{{Peers: host, Ports: http}}, Audit: c.httpAudits},
			{Name: "b", Rules: []Rule{{Peers: all, Ports: kafka}}, Audit: c.kafkaAudits},
			{Name: "c", Closes: [2]bool{c.closed, c.closed}},
		}
		ep, err := Compile(policies, identity.Labels{})
		if err != nil {
			t.Fatal(err)
		}
		e := ep.Lookup(flow.Egress, Peer{ID: identity.Host}, ProtoTCP, 80)
		for req, want := range map[*HTTPRequest]flow.Verdict{get: c.get, post: c.post} {
			d := e.Decision()
			if e.Action == ActionRedirect {
				d = e.Rules.Decide(req)
			}
			if d.Verdict != want || want != flow.Forwarded && d.Reason == "" {
				t.Errorf("%s: %s is %+v, want %v", name, req.Method, d, want)
			}
		}
	}
}

// What is no request at all is refused, except where only policies that audit wanted one.
func TestAuditOfWhatIsNoRequest(t *testing.T) {
	rules := func(deny bool) []Rule {
		return []Rule{{Deny: deny, Peers: Peers{Any: true}, Ports: http80(HTTPRule{Method: testPattern("GET")})}}
	}
	whole := []Rule{{Peers: Peers{Any: true}, AnyPort: true}}
	for name, c := range map[string]struct {
		policies []*Policy
		lenient  bool
	}{
		"audited alone":                    {[]*Policy{{Name: "a", Rules: rules(false), Audit: true}}, true},
		"enforced alone":                   {[]*Policy{{Name: "a", Rules: rules(false)}}, false},
		"both":                             {[]*Policy{{Name: "a", Rules: rules(false), Audit: true}, {Name: "b", Rules: rules(true)}}, false},
		"an audited deny, the port open":   {[]*Policy{{Name: "a", Rules: rules(true), Audit: true}, {Name: "b", Rules: whole}}, true},
		"audited, the direction is closed": {[]*Policy{{Name: "a", Rules: rules(false), Audit: true}, {Name: "b", Closes: [2]bool{true, true}}}, false},
	} {
		ep, err := Compile(c.policies, identity.Labels{})
		if err != nil {
			t.Fatal(err)
		}
		e := ep.Lookup(flow.Egress, Peer{ID: identity.World}, ProtoTCP, 80)
		want := flow.Dropped
		if c.lenient {
			want = flow.Audit
		}
		if d := e.Rules.Decide(otherRequest{}); e.Rules.NeverRefuses() != c.lenient || d.Verdict != want {
			t.Errorf("%s: never refuses %v, %+v", name, e.Rules.NeverRefuses(), d)
		}
	}
}
