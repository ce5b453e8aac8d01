package cilium

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

var addresses = parseAll("203.0.113.9", "203.0.113.8", "203.0.113.15", "203.0.113.16", "203.0.113.0", "203.0.113.255", "203.0.112.1", "10.0.0.1", "10.1.2.3",
	"192.0.2.1", "0.0.0.0", "255.255.255.255", "127.0.0.1", "198.51.100.7", "198.51.100.7", "198.51.100.8", "203.0.113.9", "2001:db8:7::7", "2001:db8::1", "2001:db8:0:1::", "2001:db8::ffff", "fd00::1", "::", "::1")

func parseAll(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, t := range texts {
		all = append(all, netip.MustParseAddr(t))
	}
	return all
}

// connection is a random one; near are the ports that the documents name.
func (g generator) connection(near []int) *connection {
	c := &connection{direction: flow.Direction(g.IntN(2)), subject: pick(g, endpoints...)}
	switch g.IntN(8) {
	case 0:
		c.peer.entity = pick(g, identity.Host, identity.Host, identity.RemoteNode)
	case 1, 2:
		c.peer.addr = pick(g, addresses...)
	default:
		c.peer.endpoint = pick(g, endpoints...)
	}
	c.proto = pick(g, l7rules.ProtoTCP, l7rules.ProtoTCP, l7rules.ProtoTCP, l7rules.ProtoTCP, l7rules.ProtoTCP, l7rules.ProtoTCP, l7rules.ProtoUDP, l7rules.ProtoUDP, l7rules.ProtoSCTP, 1)
	c.port = g.portNear(near)
	if c.proto == 1 {
		c.port = 0
	}
	g.addRequests(c, g.IntN(4))
	return c
}

// addRequests adds n requests of the protocol that the documents have rules for on the
// connection's port.
func (g generator) addRequests(c *connection, n int) {
	for range n {
		switch {
		case c.port == dnsPort && c.proto != l7rules.ProtoSCTP:
			c.requests = append(c.requests, g.query())
		case c.proto == l7rules.ProtoTCP && c.port != kafkaPort && c.port != tlsPort:
			c.requests = append(c.requests, g.request())
		}
	}
}

func (g generator) query() *l7rules.DNSQuery {
	return &l7rules.DNSQuery{Name: pick(g, "a.test", "A.test.", "www.a.test", "x.y.a.test", "b.test", "test", "www.b.test", "sub-1.a.test", "suba.test", "xa.test", "a.test.test", "_x.a.test"), QType: 1}
}

// portNear is one of near, or next to one of them, seldom anything.
func (g generator) portNear(near []int) uint16 {
	if len(near) == 0 || g.oneIn(10) {
		return uint16(1 + g.IntN(65535))
	}
	return uint16(min(65535, max(1, pick(g, near...)+pick(g, 0, 0, 0, 0, 0, -1, 1))))
}

// portsIn are the ports that documents name.
func portsIn(docs []document) []int {
	var all []int
	for _, d := range docs {
		for _, p := range places(d) {
			switch v := p.value.(type) {
			case string:
				if n, err := strconv.Atoi(v); err == nil && p.key == "port" {
					all = append(all, n)
				}
			case int:
				if p.key == "endPort" || p.key == "port" {
					all = append(all, v)
				}
			}
		}
	}
	return all
}

var (
	paths = []string{"/", "/a", "/a", "/b", "/a/", "/a/b", "/a?q=1", "/ab", "/abba", "/A", "/x", "/xxx", "/xxxx", "/12", "/1a", "/public", "/public/", "/public?x",
		"/publicadmin", "/b/c", "/d/c", "/a/c/c", "/a.b", "/axb", "/a/a", "/.x", "/aa", "*"}
	hosts = []string{"api.test", "api.test", "api.test:8080", "apixtest", "web", "x.test", "api.test.evil", ""}
)

// request is a canonical one, as the proxy gives it to the rules.
func (g generator) request() *l7rules.HTTPRequest {
	r := &l7rules.HTTPRequest{Proto: "HTTP/1.1",
		Method: []byte(pick(g, "GET", "GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "get", "GETX")),
		Path:   []byte(pick(g, paths...)), Host: []byte(pick(g, hosts...))}
	if g.oneIn(4) {
		r.Path = fmt.Appendf(nil, pick(g, "/n%d", "/n%d", "/n%d/x", "/%d", "/N%d"), g.IntN(41))
	}
	for range g.IntN(3) * g.IntN(2) {
		r.Header = append(r.Header, l7rules.HeaderField{
			Name:  []byte(pick(g, "X-A", "X-A", "x-a", "X-B", "User-Agent", "X-C")),
			Value: []byte(pick(g, "1", "1", "2", "1,2", "", "a b", "a:b")),
		})
	}
	return r
}
