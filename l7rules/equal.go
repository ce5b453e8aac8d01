package l7rules

import (
	"slices"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/match"
)

// Equal reports whether two policies say the same, wherever they stand in their files: all
// but their Origins is compared.
func (p *Policy) Equal(q *Policy) bool {
	return p.Kind == q.Kind && p.Namespace == q.Namespace && p.Name == q.Name && p.Spec == q.Spec &&
		p.Subject.String() == q.Subject.String() && p.Open == q.Open && p.Closes == q.Closes && p.Audit == q.Audit &&
		slices.EqualFunc(p.Rules, q.Rules, equalRule)
}

func equalRule(r, q Rule) bool {
	return r.Direction == q.Direction && r.Deny == q.Deny && r.Index == q.Index && r.AnyPort == q.AnyPort &&
		equalPeers(&r.Peers, &q.Peers) && slices.EqualFunc(r.Ports, q.Ports, equalPortRule)
}

func equalPeers(p, q *Peers) bool {
	return p.Any == q.Any && slices.Equal(p.Entities, q.Entities) && slices.Equal(p.Names, q.Names) &&
		slices.EqualFunc(p.Endpoints, q.Endpoints, func(a, b identity.Selector) bool { return a.String() == b.String() }) &&
		slices.EqualFunc(p.CIDRs, q.CIDRs, func(a, b CIDR) bool { return a.Prefix == b.Prefix && slices.Equal(a.Except, b.Except) })
}

func equalPortRule(p, q PortRule) bool {
	return p.Protocol == q.Protocol && slices.Equal(p.Ports, q.Ports) &&
		slices.EqualFunc(p.HTTP, q.HTTP, equalHTTP) && slices.EqualFunc(p.DNS, q.DNS, equalName) &&
		slices.EqualFunc(p.TLS, q.TLS, equalName) && slices.EqualFunc(p.Kafka, q.Kafka, equalKafka)
}

func equalName(n, m NameRule) bool { return n.Name == m.Name }

func equalHTTP(h, g HTTPRule) bool {
	return equalPattern(h.Method, g.Method) && equalPattern(h.Path, g.Path) && equalPattern(h.Host, g.Host) &&
		slices.Equal(h.Headers, g.Headers) && slices.Equal(h.Log, g.Log) && h.GRPC == g.GRPC
}

func equalPattern(p, q *match.Pattern) bool {
	if p == nil || q == nil {
		return p == q
	}
	return p == q || p.String() == q.String()
}

func equalKafka(k, l KafkaRule) bool {
	return k.Role == l.Role && slices.Equal(k.APIKeys, l.APIKeys) && (k.APIKeys == nil) == (l.APIKeys == nil) &&
		(k.APIVersion == nil) == (l.APIVersion == nil) && (k.APIVersion == nil || *k.APIVersion == *l.APIVersion) &&
		k.ClientID == l.ClientID && k.Topic == l.Topic && k.Group == l.Group && k.TransactionalID == l.TransactionalID
}
