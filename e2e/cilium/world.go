package cilium

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// endpoint is a workload that both engines know.
type endpoint struct {
	name   string
	id     identity.ID
	labels identity.Labels
}

// endpoints are the same in every test: what differs is who selects them.
var endpoints = makeEndpoints(map[string]string{
	"a":      "app=a",
	"ax":     "app=a tier=x",
	"b":      "app=b tier=y",
	"c":      "app=c tier=x io.cilium.k8s.policy.serviceaccount=robot",
	"bare":   "",
	"docker": "container:image=nginx app=d",
	"red":    "app=a io.cilium.k8s.namespace.labels.team=red",
	"o/a":    "app=a",
	"o/b":    "app=b tier=x",
	"o/red":  "tier=y io.cilium.k8s.namespace.labels.team=red",
	"s/a":    "app=a tier=y",
})

func makeEndpoints(texts map[string]string) []*endpoint {
	namespaces := map[string]string{"": "default", "o": "other", "s": "shop"}
	var all []*endpoint
	for _, name := range sortedKeys(texts) {
		ns, _, ok := strings.Cut(name, "/")
		if !ok {
			ns = ""
		}
		labels, err := identity.Workload(namespaces[ns], strings.Fields(texts[name])...)
		if err != nil {
			panic(err)
		}
		all = append(all, &endpoint{name, identity.FirstEndpoint + identity.ID(len(all)), labels})
	}
	return all
}

// names are what every endpoint was told that addresses are called.
var names = map[netip.Addr][]string{
	netip.MustParseAddr("198.51.100.7"):  {"www.a.test"},
	netip.MustParseAddr("198.51.100.8"):  {"a.test", "b.test"},
	netip.MustParseAddr("203.0.113.9"):   {"x.y.a.test"},
	netip.MustParseAddr("2001:db8:7::7"): {"sub-1.a.test", "test"},
}

// peer is the other end of a connection: an endpoint, an entity or an address outside.
type peer struct {
	endpoint *endpoint
	entity   identity.ID
	addr     netip.Addr
}

func (p peer) String() string {
	switch {
	case p.endpoint != nil:
		return p.endpoint.name + " {" + p.endpoint.labels.String() + "}"
	case p.addr.IsValid():
		return strings.TrimSpace(p.addr.String() + " " + strings.Join(names[p.addr], " "))
	}
	return p.entity.String()
}

// connection is one that a subject opens to a peer, or a peer to it, seen from the
// subject's side, with requests that are made on it.
type connection struct {
	direction flow.Direction
	subject   *endpoint
	peer      peer
	proto     uint8
	port      uint16
	requests  []flow.Request
}

func (c *connection) String() string {
	arrow := "to"
	if c.direction == flow.Ingress {
		arrow = "from"
	}
	proto := map[uint8]string{1: "icmp", l7rules.ProtoTCP: "tcp", l7rules.ProtoUDP: "udp", l7rules.ProtoSCTP: "sctp"}[c.proto]
	s := fmt.Sprintf("%s of %s {%s} %s %s, %s port %d", c.direction, c.subject.name, c.subject.labels, arrow, c.peer, proto, c.port)
	for _, r := range c.requests {
		s += "\n  " + requestString(r)
	}
	return s
}

func requestString(req flow.Request) string {
	r, ok := req.(*l7rules.HTTPRequest)
	if !ok {
		return string(req.AppendText(nil))
	}
	s := fmt.Sprintf("%s %s, Host %q", r.Method, r.Path, r.Host)
	for _, h := range r.Header {
		s += fmt.Sprintf(", %s: %q", h.Name, h.Value)
	}
	return s
}

// verdict is what an engine says of a connection.
type verdict struct {
	allowed  bool   // the connection itself
	proxied  bool   // through the proxy, which judges its requests
	requests []bool // each one of the connection's, in order
	byAll    []bool // Cilium: the same if its DNS proxy knew every rule that covers the port
	why      string // for people
}

func (v verdict) String() string {
	s := "denied"
	switch {
	case v.allowed && v.proxied:
		s = "through the proxy"
	case v.allowed:
		s = "allowed"
	}
	for _, ok := range v.requests {
		s += map[bool]string{true: ", FORWARDED", false: ", DROPPED"}[ok]
	}
	if v.why != "" {
		s += " (" + v.why + ")"
	}
	return s
}
