package prove

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// requestRules are rules about the requests of one protocol.
type requestRules struct {
	protocol l7rules.Protocol
	http     []*l7rules.HTTPRule
	names    []l7rules.NameRule // DNS or TLS
	kafka    []*l7rules.KafkaRule
}

func (r *requestRules) add(p *l7rules.PortRule) {
	for i := range p.HTTP {
		r.http = append(r.http, &p.HTTP[i])
	}
	r.names = append(append(r.names, p.DNS...), p.TLS...)
	for i := range p.Kafka {
		r.kafka = append(r.kafka, &p.Kafka[i])
	}
}

// join adds those rules of others that are about the same protocol.
func (r *requestRules) join(others ...requestRules) {
	for _, o := range others {
		if o.protocol == r.protocol {
			r.http, r.names, r.kafka = append(r.http, o.http...), append(r.names, o.names...), append(r.kafka, o.kafka...)
		}
	}
}

// key is the same for rules with the same text.
func (r *requestRules) key() string {
	var b strings.Builder
	b.WriteString(string(r.protocol))
	for _, h := range r.http {
		fmt.Fprintf(&b, "\n%s %s %s", text(h.Method), text(h.Path), text(h.Host))
		for _, h := range h.Headers {
			fmt.Fprintf(&b, " %q %q %v", h.Name, h.Value, h.Exact)
		}
	}
	for _, n := range r.names {
		fmt.Fprintf(&b, "\n%q", n.Name.Key())
	}
	for _, k := range r.kafka {
		version := -1
		if k.APIVersion != nil {
			version = int(*k.APIVersion)
		}
		fmt.Fprintf(&b, "\n%q %v %d %q %q %v %q %v %q %v", k.Role, k.APIKeys, version, k.ClientID,
			k.Topic.Value, k.Topic.Prefix, k.Group.Value, k.Group.Prefix, k.TransactionalID.Value, k.TransactionalID.Prefix)
	}
	return b.String()
}

// requests returns requests of the rules' protocol that stand for all there are, as far as
// the rules can tell them apart.
func (b *bench) requests(rules requestRules) ([]flow.Request, error) {
	key := rules.key()
	if known, ok := b.lists[key]; ok {
		return known.list, known.err
	}
	list, err := b.makeRequests(rules)
	b.lists[key] = requestList{list, err}
	return list, err
}

// requestList is a list of requests, or why there is none.
type requestList struct {
	list []flow.Request
	err  error
}

func (b *bench) makeRequests(rules requestRules) (list []flow.Request, err error) {
	switch rules.protocol {
	case l7rules.HTTP:
		list, err = b.httpRequests(rules.http)
	case l7rules.DNS, l7rules.TLS:
		list, err = b.nameRequests(rules.protocol, rules.names)
	case l7rules.Kafka:
		list, err = kafkaRequests(rules.kafka)
	default:
		err = &Unknown{Reason: fmt.Sprintf("%s rules are not compared", rules.protocol)}
	}
	if err != nil {
		return nil, err
	}
	if b.budget -= len(list) * requestCost; b.budget < 0 {
		b.budget = 0
		return nil, &Unknown{Reason: "everything together has too many kinds of requests"}
	}
	return list, nil
}

// requestRules are those that judge what a peer says on a port.
func (r *resolved) requestRules(rs *l7rules.Ruleset, about func(*l7rules.Rule) bool, proto uint8, port uint16) requestRules {
	list := requestRules{protocol: rs.Protocol()}
	for _, p := range r.selected {
		for i := range p.Rules {
			if !about(&p.Rules[i]) {
				continue
			}
			for j := range p.Rules[i].Ports {
				pr := &p.Rules[i].Ports[j]
				if pr.Protocol == list.protocol && slices.ContainsFunc(pr.Ports, func(r l7rules.PortRange) bool {
					return r.Proto == proto && r.First <= port && port <= r.Last
				}) {
					list.add(pr)
				}
			}
		}
	}
	return list
}
