package l7rules

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// Values that random policies and flows are made of: few, so that they meet.
var (
	testApps     = []string{"a", "b", "c"}
	testPorts    = []uint16{1, 53, 79, 80, 81, 443, 9092, 65535}
	testMethods  = []string{"GET", "POST", "DELETE"}
	testPaths    = []string{"/", "/a", "/a/b", "/b", "/public"}
	testPatterns = []string{"/a", "/a.*", "/(a|b)", "/public([/?].*)?", ".*", "/[^/]*"}
	testPrefixes = []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0", "fd00::/8", "fd00::1/128"}
	testNames    = []string{"a.test", "x.a.test", "x.y.a.test", "b.test", "X.B.test", "x!.a.test"}
	testNamed    = []string{"a.test", "*.a.test", "**.a.test", "*", "b.test", "*.B.test"}
	testTopics   = []string{"orders", "orders.eu", "payments"}
	testAddrs    = []string{"10.1.2.3", "10.1.2.4", "10.1.3.1", "10.2.0.1", "192.0.2.1", "fd00::1", "fd00::2", "2001:db8::1"}
)

// testProtocol is what is spoken on a port, so that rules do not contradict each other;
// TestTwoProtocols has those that do.
func testProtocol(first, last uint16) Protocol {
	switch {
	case first >= 79 && last <= 81:
		return HTTP
	case first == 53 && last == 53:
		return DNS
	case first == 443 && last == 443:
		return TLS
	case first == 9092 && last == 9092:
		return Kafka
	}
	return ""
}

type generator struct {
	*rand.Rand
	t *testing.T
}

func pick[T any](g generator, list []T) T { return list[g.IntN(len(list))] }

func (g generator) labels(app string) identity.Labels {
	ls, err := identity.Workload("", "app="+app)
	if err != nil {
		g.t.Fatal(err)
	}
	return ls
}

func (g generator) pattern(list []string) *match.Pattern {
	if g.IntN(3) == 0 {
		return nil
	}
	return testPattern(pick(g, list))
}

func (g generator) selector() identity.Selector {
	var reqs []identity.Requirement
	switch g.IntN(4) {
	case 0:
		reqs = append(reqs, identity.Requirement{Source: "any", Key: "app", Op: identity.NotIn, Values: []string{pick(g, testApps)}})
	case 1:
		reqs = append(reqs, identity.Requirement{Source: "k8s", Key: "app", Op: identity.Exists})
	default:
		reqs = append(reqs, identity.Requirement{Source: "any", Key: "app", Op: identity.In, Values: []string{pick(g, testApps)}})
	}
	s, err := identity.NewSelector(append(reqs, identity.Requirement{Source: "k8s", Key: identity.NamespaceKey, Op: identity.Exists})...)
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

func (g generator) rule(index int) Rule {
	r := Rule{Direction: flow.Direction(g.IntN(2)), Deny: g.IntN(4) == 0, Index: index}
	switch g.IntN(5) {
	case 0:
		r.Peers.Any = true
	case 1:
		for range g.IntN(3) {
			r.Peers.Endpoints = append(r.Peers.Endpoints, g.selector())
		}
	case 2:
		if r.Direction == flow.Egress && !r.Deny && g.IntN(2) == 0 {
			r.Peers.Names = append(r.Peers.Names, g.name().Name)
			break
		}
		r.Peers.Entities = []Entity{pick(g, []Entity{EntityAll, EntityWorld, EntityHost, EntityCluster, EntityNone})}
	default:
		c := CIDR{Prefix: netip.MustParsePrefix(pick(g, testPrefixes))}
		for _, e := range testPrefixes {
			if p := netip.MustParsePrefix(e); g.IntN(3) == 0 && contains(c.Prefix, p) && p != c.Prefix {
				c.Except = append(c.Except, p)
			}
		}
		r.Peers.CIDRs = append(r.Peers.CIDRs, c)
	}
	if g.IntN(5) == 0 {
		r.AnyPort = true
		return r
	}
	for range 1 + g.IntN(2) {
		var pr PortRule
		for range 1 + g.IntN(2) {
			ports := PortRange{Proto: ProtoTCP, First: pick(g, testPorts)}
			ports.Last = ports.First
			switch g.IntN(8) {
			case 0, 1, 2:
				ports.Last = max(ports.First, pick(g, testPorts))
			case 3:
				ports.Proto = pick(g, []uint8{ProtoUDP, ProtoSCTP, ProtoTCP})
			}
			pr.Ports = append(pr.Ports, ports)
		}
		if protocol := pick(g, []Protocol{"", HTTP, DNS, TLS, Kafka}); protocol != "" && g.IntN(5) > 0 {
			ports := PortRange{ProtoTCP, 79, 81}
			switch protocol {
			case HTTP:
				ports.First = 79 + uint16(g.IntN(3))
				ports.Last = ports.First + uint16(g.IntN(int(82-ports.First)))
			case DNS:
				ports = PortRange{pick(g, []uint8{ProtoTCP, ProtoUDP}), 53, 53}
			case TLS:
				ports = PortRange{ProtoTCP, 443, 443}
			case Kafka:
				ports = PortRange{ProtoTCP, 9092, 9092}
			}
			pr.Ports = []PortRange{ports}
			g.requests(&pr, protocol, r.Deny)
		}
		r.Ports = append(r.Ports, pr)
	}
	return r
}

// requests adds request rules.
func (g generator) requests(pr *PortRule, protocol Protocol, deny bool) {
	pr.Protocol = protocol
	for range 1 + g.IntN(3) {
		switch protocol {
		case HTTP:
			h := HTTPRule{Method: g.pattern(testMethods), Path: g.pattern(testPatterns)}
			if g.IntN(4) == 0 {
				h.Headers = []HeaderMatch{{Name: "X-A", Value: "1", Exact: g.IntN(2) == 0}}
			}
			if g.IntN(4) == 0 {
				h.Log = []HeaderMatch{{Name: "X-B", Value: "1", Exact: true}}
			}
			if g.IntN(5) == 0 {
				var err error
				if h, err = NewGRPCRule(Origin{}, pick(g, []string{"p.A", "*"}), pick(g, []string{"Get", ""})); err != nil {
					g.t.Fatal(err)
				}
			}
			pr.HTTP = append(pr.HTTP, h)
		case DNS:
			pr.DNS = append(pr.DNS, g.name())
		case TLS:
			pr.TLS = append(pr.TLS, g.name())
		case Kafka:
			pr.Kafka = append(pr.Kafka, g.kafka(deny))
		}
	}
}

func (g generator) name() NameRule {
	n, err := match.CompileNamePattern(pick(g, testNamed))
	if err != nil {
		g.t.Fatal(err)
	}
	return NameRule{Name: n}
}

func (g generator) kafka(deny bool) (k KafkaRule) {
	switch g.IntN(4) {
	case 0:
		k.APIKeys = []int16{pick(g, []int16{0, 1, 3, 10, 18, 20, 22})}
	case 1, 2:
		k.Role = pick(g, []KafkaRole{KafkaProduce, KafkaConsume})
	}
	if g.IntN(6) == 0 {
		k.APIVersion = new(int16)
	}
	if g.IntN(6) == 0 {
		k.ClientID = "me"
	}
	for _, n := range []*KafkaName{&k.Topic, &k.Group, &k.TransactionalID} {
		if g.IntN(3) == 0 {
			*n = KafkaName{pick(g, testTopics), g.IntN(2) == 0}
			if deny {
				break // a deny rule has one
			}
		}
	}
	return k
}

func (g generator) request(protocol Protocol) flow.Request {
	switch protocol {
	case DNS:
		return &DNSQuery{Name: pick(g, testNames), QType: 1}
	case TLS:
		return &ClientHello{ServerName: pick(g, append([]string{""}, testNames[:5]...))}
	case Kafka:
		q := &KafkaRequest{APIKey: pick(g, []int16{0, 1, 3, 10, 11, 18, 20, 22, 24, 25, 28, 36}), APIVersion: int16(g.IntN(2)), ClientID: pick(g, []string{"", "me"})}
		if q.Resource = KafkaResource(g.IntN(5)); q.Resource > KafkaNone {
			q.Name = pick(g, testTopics)
		}
		return q
	}
	h := HTTPRequest{Proto: "HTTP/1.1", Method: []byte(pick(g, testMethods)), Path: []byte(pick(g, testPaths))}
	for range g.IntN(3) {
		h.Header = append(h.Header, HeaderField{[]byte(pick(g, []string{"X-A", "x-a", "X-B"})), []byte(pick(g, []string{"1", "2"}))})
	}
	if g.IntN(5) == 0 {
		h.Method, h.Path = []byte("POST"), []byte(pick(g, []string{"/p.A/Get", "/p.A/Put", "/p.B/Get"}))
		return &GRPCRequest{h}
	}
	return &h
}

func (g generator) policies() []*Policy {
	var all []*Policy
	for i := range 1 + g.IntN(4) {
		p := &Policy{Namespace: "default", Name: fmt.Sprintf("p%d", i), Subject: g.selector(), Open: [2]bool{g.IntN(5) == 0, g.IntN(5) == 0},
			Closes: [2]bool{g.IntN(20) == 0, g.IntN(20) == 0}, Audit: g.IntN(4) == 0}
		for j := range 1 + g.IntN(4) {
			p.Rules = append(p.Rules, g.rule(j))
		}
		all = append(all, p)
	}
	return all
}

// flow is one of those that policies are likely to have something to say about.
func (g generator) flow(policies []*Policy) testFlow {
	f := testFlow{dir: flow.Direction(g.IntN(2)), subject: g.labels(pick(g, testApps)), proto: pick(g, []uint8{ProtoTCP, ProtoTCP, ProtoTCP, ProtoTCP, ProtoTCP, ProtoTCP, ProtoUDP, ProtoSCTP, 1}), port: pick(g, testPorts)}
	if r := pick(g, pick(g, policies).Rules); len(r.Ports) > 0 && g.IntN(3) > 0 {
		ports := pick(g, pick(g, r.Ports).Ports)
		f.dir, f.proto, f.port = r.Direction, ports.Proto, ports.First
	}
	switch g.IntN(4) {
	case 0:
		f.peer = Peer{ID: identity.Host}
	case 1:
		f.addr = netip.MustParseAddr(pick(g, testAddrs))
	default:
		app := pick(g, testApps)
		f.peer = Peer{ID: identity.FirstEndpoint + identity.ID(app[0]), Labels: g.labels(app)}
	}
	if f.addr.IsValid() && g.IntN(2) == 0 {
		for range 1 + g.IntN(2) {
			f.names = append(f.names, pick(g, testNames))
		}
	}
	f.req = g.request(testProtocol(f.port, f.port))
	return f
}
