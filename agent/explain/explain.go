// Package explain answers what a set of policies says about one flow, and why, without a
// kernel: what weir policy explain and weir policy validate print.
package explain

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/weir-proxy/weir/agent/config"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/proxy/httpproxy"
)

// Query is the flow in question, in the words of the command line; its JSON form is a
// line of weir policy explain --batch.
type Query struct {
	From     string   `json:"from"`               // labels "app=a,k8s:tier=b", a workload of the configuration, an entity, an address
	To       string   `json:"to"`                 // the same, or "self", with ":PORT"
	Protocol string   `json:"protocol,omitempty"` // "tcp", "udp" or "sctp"; "" is tcp
	HTTP     string   `json:"http,omitempty"`     // "GET /path", "" for the connection alone
	Host     *string  `json:"host,omitempty"`     // of the request, nil for what a client would send
	Headers  []string `json:"headers,omitempty"`  // "Name: value"
	// Raw asks about bytes in no protocol that rules can be written in.
	Raw bool `json:"raw,omitempty"`
}

// Set is a set of policies, and what a configuration says of those they are about. It is
// for one goroutine at a time.
type Set struct {
	policies []*l7rules.Policy
	config   *config.Config // may be nil
	compiled map[string]*l7rules.EndpointPolicy
	origins  map[string]l7rules.Origin // of rules, by the names that records give them
}

// NewSet makes a set. The configuration may be nil.
func NewSet(policies []*l7rules.Policy, c *config.Config) *Set {
	s := &Set{policies: policies, config: c, compiled: map[string]*l7rules.EndpointPolicy{}, origins: map[string]l7rules.Origin{}}
	for _, p := range policies {
		for i := range p.Rules {
			if ref := p.Ref(&p.Rules[i]); s.origins[ref] == (l7rules.Origin{}) {
				s.origins[ref] = p.Rules[i].Origin
			}
		}
	}
	return s
}

// maxCompiled bounds the policies kept by subject.
const maxCompiled = 1 << 14

func (s *Set) compile(subject identity.Labels) (*l7rules.EndpointPolicy, error) {
	key := subject.String()
	if ep := s.compiled[key]; ep != nil {
		return ep, nil
	}
	ep, err := l7rules.Compile(s.policies, subject)
	if err != nil {
		return nil, err
	}
	if len(s.compiled) >= maxCompiled {
		clear(s.compiled)
	}
	s.compiled[key] = ep
	return ep, nil
}

// Answer is what the policies say. Both sides must let a flow through.
type Answer struct {
	Verdict  flow.Verdict
	Proxy    bool // judged request by request
	Request  *l7rules.HTTPRequest
	Egress   Side   // of the sender
	Ingress  Side   // of the receiver
	From, To string // as they were asked for
	Protocol string
	Port     uint16
}

// Side is the verdict of one direction.
type Side struct {
	Judged  bool // there is an endpoint on this side
	Verdict flow.Verdict
	Policy  string         // the rule that decided, "namespace/name[egress 0]"
	Origin  l7rules.Origin // its place
	Reason  string         // why no rule decided, and which came nearest
	Nearest l7rules.Origin // the place of the one that came nearest
}

// Ask answers a query. An error says what is wrong with the query, or with the policies
// taken together.
func (s *Set) Ask(q Query) (*Answer, error) {
	from, err := parseWho(q.From, s.config, false)
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	name, port, err := splitPort(q.To)
	if err != nil {
		return nil, fmt.Errorf("--to: %w", err)
	}
	to, err := parseWho(name, s.config, true)
	if err != nil {
		return nil, fmt.Errorf("--to: %w", err)
	}
	if from.self {
		return nil, fmt.Errorf("--from: self is for --to")
	}
	if !to.self && !from.judged() && !to.judged() {
		return nil, fmt.Errorf("neither %s nor %s is an endpoint, so no policy judges this: give the labels of one, such as app=a", from, to)
	}
	protos := map[string]uint8{"": l7rules.ProtoTCP, "tcp": l7rules.ProtoTCP, "udp": l7rules.ProtoUDP, "sctp": l7rules.ProtoSCTP}
	proto, ok := protos[strings.ToLower(q.Protocol)]
	if !ok {
		return nil, fmt.Errorf("--protocol: unknown protocol %q: tcp, udp or sctp", q.Protocol)
	}
	a := &Answer{From: from.String(), To: to.String(), Protocol: strings.ToLower(q.Protocol), Port: port}
	if a.Protocol == "" {
		a.Protocol = "tcp"
	}

	j := judge{set: s, proto: proto, port: port, raw: q.Raw, hasRequest: q.HTTP != ""}
	switch {
	case q.HTTP == "" && (q.Host != nil || len(q.Headers) > 0):
		return nil, fmt.Errorf("--host and --header say more of a request: give --http 'METHOD PATH' too")
	case q.HTTP != "" && q.Raw:
		return nil, fmt.Errorf("--raw: bytes that are no request cannot be one of --http")
	case q.HTTP != "" && proto != l7rules.ProtoTCP:
		return nil, fmt.Errorf("--http: HTTP goes over tcp")
	case q.HTTP != "":
		if a.Request, j.unreadable, err = request(q, to, port); err != nil {
			return nil, err
		}
		j.req = a.Request
	}
	if to.self {
		a.Verdict = flow.Forwarded
		a.Egress = Side{Judged: true, Verdict: flow.Forwarded, Reason: "an endpoint always reaches itself"}
		return a, nil
	}
	if err := j.side(flow.Egress, from, to, &a.Egress, &a.Proxy); err != nil {
		return nil, err
	}
	if err := j.side(flow.Ingress, to, from, &a.Ingress, &a.Proxy); err != nil {
		return nil, err
	}
	if a.Egress.Verdict == flow.Forwarded && a.Ingress.Verdict == flow.Forwarded {
		a.Verdict = flow.Forwarded
	}
	return a, nil
}

// judge is what both sides are asked.
type judge struct {
	set        *Set
	proto      uint8
	port       uint16
	raw        bool
	req        *l7rules.HTTPRequest
	hasRequest bool
	unreadable error // why req is nil although there is a request
}

func (j *judge) side(dir flow.Direction, subject, peer who, s *Side, proxy *bool) error {
	if !subject.judged() {
		s.Verdict = flow.Forwarded
		s.Reason = "no endpoint, not judged"
		if subject.declared {
			s.Reason = "a declared address, not judged"
		}
		return nil
	}
	s.Judged = true
	ep, err := j.set.compile(subject.peer.Labels)
	if err != nil {
		return err
	}
	e := ep.Lookup(dir, peer.resolve(ep.Prefixes(dir)), j.proto, j.port)
	d := l7rules.Decision{Policy: e.Policy, Reason: e.Reason}
	if e.Action != l7rules.ActionDeny {
		d.Verdict = flow.Forwarded
	}
	if e.Action == l7rules.ActionRedirect {
		*proxy = true
		switch {
		case j.req != nil:
			d = e.Rules.Decide(j.req)
		case j.hasRequest:
			d = l7rules.Decision{Reason: "the proxy refuses the request before any rule is asked: " + j.unreadable.Error()}
		case j.raw:
			d = l7rules.Decision{Reason: fmt.Sprintf("%s rules judge each request, and this is none", e.Rules.Protocol())}
		default:
			d.Reason = fmt.Sprintf("%s rules judge each request", e.Rules.Protocol())
		}
	}
	nearest := j.set.origins[nearestRef(d.Reason)]
	if e.Action == l7rules.ActionDeny && !ep.Selected() {
		d.Reason += "; no policy selects " + subject.String()
	}
	if e.Action == l7rules.ActionDeny && d.Policy == "" && peer.addr.IsValid() && peer.peer.ID == identity.Host {
		d.Reason += "; " + peer.addr.String() + " is entity host"
	}
	*s = Side{Judged: true, Verdict: d.Verdict, Policy: d.Policy, Origin: j.set.origins[d.Policy], Reason: d.Reason, Nearest: nearest}
	if d.Allowed() {
		s.Verdict = flow.Forwarded
	}
	return nil
}

// nearestRef is the rule that the reason of a denial names as the nearest, "" without one.
func nearestRef(reason string) string {
	_, rest, _ := strings.Cut(reason, "; nearest ")
	end := strings.Index(rest, "]: ")
	if end < 0 {
		return ""
	}
	return rest[:end+1]
}

// request makes the request of a query as the proxy would read it. unreadable says that it
// would refuse to; err that the query is none.
func request(q Query, to who, port uint16) (r *l7rules.HTTPRequest, unreadable, err error) {
	parts := strings.Fields(q.HTTP)
	if len(parts) != 2 {
		return nil, nil, fmt.Errorf("--http: %q is no request: write 'METHOD PATH', for example 'GET /public'", q.HTTP)
	}
	host := ""
	switch {
	case q.Host != nil:
		host = *q.Host
	case to.addr.IsValid():
		if host = netip.AddrPortFrom(to.addr, port).String(); port == 80 {
			host = strings.TrimSuffix(host, ":80")
		}
	}
	head := parts[0] + " " + parts[1] + " HTTP/1.1\r\nHost: " + host + "\r\n"
	for _, h := range append([]string{"Host: " + host}, q.Headers...) {
		if strings.ContainsAny(h, "\r\n") {
			return nil, nil, fmt.Errorf("--header: %q holds a line end", h)
		}
	}
	for _, h := range q.Headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return nil, nil, fmt.Errorf("--header: %q is no header: write 'Name: value'", h)
		}
		if strings.EqualFold(name, "host") {
			return nil, nil, fmt.Errorf("--header: write --host for the Host header")
		}
		head += name + ":" + value + "\r\n"
	}
	r, unreadable = httpproxy.Canonical([]byte(head + "\r\n"))
	return r, unreadable, nil
}
