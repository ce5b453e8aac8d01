// Package explain answers what a set of policies says about one flow, and why, without a
// kernel: what weir policy explain and weir policy validate print.
package explain

import (
	"fmt"
	"strings"

	"github.com/weir-proxy/weir/agent/config"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// Query is the flow in question, in the words of the command line; its JSON form is a
// line of weir policy explain --batch.
type Query struct {
	From     string `json:"from"`               // labels "app=a,k8s:tier=b", a workload of the configuration, an entity, an address
	To       string `json:"to"`                 // the same, a DNS name, or "self", with ":PORT"
	Protocol string `json:"protocol,omitempty"` // "tcp", "udp" or "sctp"; "" is udp for DNS, else tcp

	// At most one of these; none asks about the connection alone.
	HTTP  string  `json:"http,omitempty"`  // "GET /path"
	GRPC  string  `json:"grpc,omitempty"`  // "pkg.Service/Method"
	DNS   string  `json:"dns,omitempty"`   // "a.test" or "a.test AAAA"
	SNI   *string `json:"sni,omitempty"`   // server name of a TLS ClientHello, "" for one without
	Kafka string  `json:"kafka,omitempty"` // "produce orders", see parseKafka
	Raw   bool    `json:"raw,omitempty"`   // bytes in no protocol that rules can be written in

	Host    *string  `json:"host,omitempty"`    // with HTTP and GRPC; nil for what a client would send
	Headers []string `json:"headers,omitempty"` // with HTTP and GRPC: "Name: value"
}

// Set is a set of policies, and what a configuration says of those they are about. It is
// for one goroutine at a time.
type Set struct {
	policies []*l7rules.Policy
	config   *config.Config // may be nil
	only     bool
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

// OnlyKnown takes the configuration at its word: proofs and comparisons look at its
// workloads and addresses, the host and the world, and at no other endpoint that could be.
func (s *Set) OnlyKnown() { s.only = true }

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
	Proxy    bool         // judged request by request
	Request  flow.Request // nil for the connection alone
	Egress   Side         // of the sender
	Ingress  Side         // of the receiver
	From, To string       // as they were asked for
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
	var ok bool
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
	j := judge{set: s, port: port}
	if err := j.request(q, to); err != nil {
		return nil, err
	}
	a := &Answer{From: from.String(), To: to.String(), Protocol: strings.ToLower(q.Protocol), Port: port, Request: j.req}
	if a.Protocol == "" {
		if a.Protocol = "tcp"; q.DNS != "" {
			a.Protocol = "udp"
		}
	}
	protos := map[string]uint8{"tcp": l7rules.ProtoTCP, "udp": l7rules.ProtoUDP, "sctp": l7rules.ProtoSCTP}
	j.proto, ok = protos[a.Protocol]
	switch {
	case !ok:
		return nil, fmt.Errorf("--protocol: unknown protocol %q: tcp, udp or sctp", q.Protocol)
	case j.asked != "" && j.proto != l7rules.ProtoTCP && (j.asked != "dns" || j.proto != l7rules.ProtoUDP):
		return nil, fmt.Errorf("--%s: that goes over tcp", j.asked)
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
	switch {
	case !a.Egress.through() || !a.Ingress.through():
	case a.Egress.Verdict == flow.Audit || a.Ingress.Verdict == flow.Audit:
		a.Verdict = flow.Audit
	default:
		a.Verdict = flow.Forwarded
	}
	return a, nil
}

// judge is what both sides are asked.
type judge struct {
	set        *Set
	proto      uint8
	port       uint16
	asked      string       // the flag that says what is sent, "" for the connection alone
	req        flow.Request // nil for none, for bytes that are none, and for one that is unreadable
	unreadable error
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
	d := e.Decision()
	if e.Action == l7rules.ActionRedirect {
		*proxy = true
		switch {
		case j.req != nil:
			d = e.Rules.Decide(j.req)
		case j.asked == "":
			d.Reason = fmt.Sprintf("%s rules judge each request", e.Rules.Protocol())
		default:
			d = j.none(e.Rules)
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
	return nil
}

// none is what becomes of bytes that are no request, or one that nobody can read.
func (j *judge) none(rules *l7rules.Ruleset) l7rules.Decision {
	d := l7rules.Decision{Reason: fmt.Sprintf("%s rules judge each request, and this is none", rules.Protocol())}
	if j.unreadable != nil {
		d.Reason = "the proxy refuses the request before any rule is asked: " + j.unreadable.Error()
	}
	if rules.NeverRefuses() {
		d.Verdict = flow.Audit
	}
	return d
}

// through reports whether a side lets pass what was asked about.
func (s *Side) through() bool { return s.Verdict == flow.Forwarded || s.Verdict == flow.Audit }

// nearestRef is the rule that the reason of a denial names as the nearest, "" without one.
func nearestRef(reason string) string {
	_, rest, _ := strings.Cut(reason, "; nearest ")
	end := strings.Index(rest, "]: ")
	if end < 0 {
		return ""
	}
	return rest[:end+1]
}
