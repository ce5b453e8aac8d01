package l7rules

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// The reference evaluator says what policies mean in the fewest words: if any deny rule
// covers the flow it is dropped, else if any allow rule covers it, with its request rules if
// it has some, it is forwarded, else the default decides. It shares no code with what it
// checks but the model.

type testFlow struct {
	dir     flow.Direction
	subject identity.Labels
	peer    Peer
	addr    netip.Addr // of a peer outside
	names   []string   // of addr
	proto   uint8
	port    uint16
	req     flow.Request
}

// reference is the verdict, and whether any request rule is for this peer and port.
func reference(policies []*Policy, f testFlow) (verdict flow.Verdict, proxied bool) {
	forwarded, proxied := refForwarded(policies, f, func(*Policy) bool { return true })
	if forwarded {
		return flow.Forwarded, proxied
	}
	// What policies that audit would refuse is left out.
	if forwarded, _ = refForwarded(policies, f, func(p *Policy) bool { return !p.Audit }); forwarded {
		return flow.Audit, proxied
	}
	return flow.Dropped, proxied
}

// refForwarded judges with those policies refusing for which refuses is true, and all
// allowing.
func refForwarded(policies []*Policy, f testFlow, refuses func(*Policy) bool) (forwarded, proxied bool) {
	closed, denied, allowed := false, false, false
	for _, p := range policies {
		if !p.Subject.Matches(f.subject) {
			continue
		}
		if p.Closes[f.dir] && refuses(p) {
			closed = true
		}
		for i := range p.Rules {
			r := &p.Rules[i]
			if r.Direction != f.dir {
				continue
			}
			closed = closed || !p.Open[f.dir] && refuses(p)
			if !refPeer(r.Peers, f) {
				continue
			}
			covers := r.AnyPort
			for _, pr := range r.Ports {
				for _, ports := range pr.Ports {
					if ports.Proto != f.proto || f.port < ports.First || f.port > ports.Last {
						continue
					}
					if pr.Protocol == "" {
						covers = true
						continue
					}
					proxied = true
					covers = covers || refRequest(pr, f.req, r.Deny)
				}
			}
			denied = denied || covers && r.Deny && refuses(p)
			allowed = allowed || covers && !r.Deny
		}
	}
	if k, ok := f.req.(*KafkaRequest); ok && !allowed && k.Resource == KafkaNone && slices.Contains([]int16{17, 18, 36}, k.APIKey) {
		allowed = refKafkaRules(policies, f)
	}
	return !denied && (allowed || !closed), proxied
}

// refKafkaRules reports whether any rule of Kafka allows anything to this peer and port.
func refKafkaRules(policies []*Policy, f testFlow) bool {
	for _, p := range policies {
		for _, r := range p.Rules {
			if !p.Subject.Matches(f.subject) || r.Direction != f.dir || r.Deny || !refPeer(r.Peers, f) {
				continue
			}
			for _, pr := range r.Ports {
				for _, ports := range pr.Ports {
					if ports.Proto == f.proto && ports.First <= f.port && f.port <= ports.Last && len(pr.Kafka) > 0 {
						return true
					}
				}
			}
		}
	}
	return false
}

func refRequest(pr PortRule, req flow.Request, deny bool) bool {
	switch q := req.(type) {
	case *HTTPRequest:
		return slices.ContainsFunc(pr.HTTP, func(h HTTPRule) bool { return refHTTP(h, q, deny) })
	case *GRPCRequest:
		return slices.ContainsFunc(pr.HTTP, func(h HTTPRule) bool { return refHTTP(h, &q.HTTPRequest, deny) })
	case *DNSQuery:
		odd := strings.ContainsAny(q.Name, "!\\")
		return slices.ContainsFunc(pr.DNS, func(n NameRule) bool { return deny && odd || refName(n.Name.String(), q.Name) })
	case *ClientHello:
		return slices.ContainsFunc(pr.TLS, func(n NameRule) bool {
			if q.ServerName == "" {
				return deny
			}
			return refName(n.Name.String(), q.ServerName)
		})
	case *KafkaRequest:
		return slices.ContainsFunc(pr.Kafka, func(k KafkaRule) bool { return refKafka(k, q, deny) })
	}
	return false
}

// refName is Cilium's way to compare names (pkg/fqdn/matchpattern).
func refName(pattern, name string) bool {
	if pattern == "*" {
		return true
	}
	expr := strings.ReplaceAll(strings.ToLower(pattern), ".", "[.]")
	if rest, ok := strings.CutPrefix(expr, "**[.]"); ok {
		expr = "([-a-z0-9_]+[.])+" + rest
	}
	return refPattern(strings.ReplaceAll(expr, "*", "[-a-z0-9_]*")).MatchString(strings.ToLower(strings.TrimSuffix(name, ".")))
}

// refRoles are what each role may say, as API key and resource.
var refRoles = map[KafkaRole]string{
	KafkaProduce: "0:nothing 0:topic 0:transactional-id 3:nothing 3:topic 10:nothing 10:transactional-id 22:nothing 22:transactional-id " +
		"24:nothing 24:topic 24:transactional-id 25:nothing 25:transactional-id 26:nothing 26:transactional-id 28:nothing 28:transactional-id",
	KafkaConsume: "1:nothing 1:topic 2:nothing 2:topic 3:nothing 3:topic 8:nothing 8:topic 8:group 9:nothing 9:topic 9:group 10:nothing 10:group " +
		"11:nothing 11:group 12:nothing 12:group 13:nothing 13:group 14:nothing 14:group 23:nothing 23:topic 25:nothing 25:group 28:nothing 28:topic 28:group " +
		"68:nothing 68:topic 68:group",
}

func refKafka(k KafkaRule, q *KafkaRequest, deny bool) bool {
	unit := strconv.Itoa(int(q.APIKey)) + ":" + strings.ReplaceAll(q.Resource.String(), " ", "-")
	in := func(role KafkaRole) bool { return slices.Contains(strings.Fields(refRoles[role]), unit) }
	switch {
	case len(k.APIKeys) > 0 && k.APIKeys[0] != q.APIKey, k.APIVersion != nil && *k.APIVersion != q.APIVersion, k.ClientID != "" && k.ClientID != q.ClientID:
		return false
	case k.Role != "" && !in(k.Role):
		return false
	case deny && k.Role != "" && in(KafkaProduce) && in(KafkaConsume):
		return false
	}
	names := map[KafkaResource]KafkaName{KafkaTopic: k.Topic, KafkaGroup: k.Group, KafkaTransaction: k.TransactionalID}
	some := k.Topic.Value+k.Group.Value+k.TransactionalID.Value != ""
	n := names[q.Resource]
	same := n.Value == q.Name || n.Prefix && strings.HasPrefix(q.Name, n.Value)
	switch {
	case deny:
		return !some || n.Value != "" && same
	case q.Resource == KafkaNone:
		return true
	case q.Resource == KafkaCluster:
		return !some && k.Role == ""
	}
	return n.Value == "" || same
}

func refPeer(p Peers, f testFlow) bool {
	if p.Any {
		return true
	}
	outside := f.addr.IsValid()
	for _, e := range p.Entities {
		switch e {
		case EntityAll:
			return true
		case EntityWorld:
			if outside {
				return true
			}
		case EntityHost:
			if f.peer.ID == identity.Host {
				return true
			}
		case EntityCluster:
			if !outside {
				return true
			}
		}
	}
	for _, s := range p.Endpoints {
		if f.peer.ID.IsEndpoint() && s.Matches(f.peer.Labels) {
			return true
		}
	}
	for _, c := range p.CIDRs {
		if outside && c.Prefix.Contains(f.addr) && !slices.ContainsFunc(c.Except, func(e netip.Prefix) bool { return e.Contains(f.addr) }) {
			return true
		}
	}
	for _, n := range p.Names {
		if outside && slices.ContainsFunc(f.names, func(name string) bool { return refName(n.String(), name) }) {
			return true
		}
	}
	return false
}

func refHTTP(h HTTPRule, r *HTTPRequest, deny bool) bool {
	for _, m := range []struct {
		p *match.Pattern
		v []byte
	}{{h.Method, r.Method}, {h.Path, r.Path}, {h.Host, r.Host}} {
		if m.p != nil && !refPattern(m.p.String()).Match(m.v) {
			return false
		}
	}
	for _, m := range h.Headers {
		var values []string
		for _, f := range r.Header {
			if strings.EqualFold(string(f.Name), m.Name) {
				values = append(values, string(f.Value))
			}
		}
		if deny && m.Exact {
			if !slices.Contains(values, m.Value) {
				return false
			}
			continue
		}
		if len(values) == 0 || m.Exact && !slices.Equal(values, []string{m.Value}) {
			return false
		}
	}
	return true
}

// refPattern and testPattern keep what they compiled: it is most of the time otherwise.
var refPattern = kept(func(s string) *regexp.Regexp { return regexp.MustCompile(`\A(?:` + s + `)\z`) })

var testPattern = kept(func(s string) *match.Pattern {
	p, err := match.Compile(s)
	if err != nil {
		panic(err)
	}
	return p
})

func kept[T any](compile func(string) T) func(string) T {
	m := map[string]T{}
	return func(s string) T {
		v, ok := m[s]
		if !ok {
			v = compile(s)
			m[s] = v
		}
		return v
	}
}
