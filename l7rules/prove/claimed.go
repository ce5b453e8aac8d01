package prove

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// Requests are those that a claim is about.
type Requests struct {
	rules requestRules // one rule, which tells them from others
	kafka *kafkaClaim
}

// covers reports whether a request is among them. Where nothing of them may get through,
// a header counts also beside another of its name, as in a rule that denies; where nothing
// else may, it must be the only one.
func (r *Requests) covers(req flow.Request, only bool) bool {
	switch q := req.(type) {
	case *l7rules.HTTPRequest:
		return len(r.rules.http) > 0 && coversHTTP(r.rules.http[0], q, !only)
	case *l7rules.DNSQuery:
		return r.rules.protocol == l7rules.DNS && r.rules.names[0].Name.Match(q.Name)
	case *l7rules.ClientHello:
		return r.rules.protocol == l7rules.TLS && r.rules.names[0].Name.Match(q.ServerName)
	case *l7rules.KafkaRequest:
		return r.kafka != nil && r.kafka.covers(q)
	}
	return false
}

// coversHTTP reports whether a rule covers a request. any says that one of several fields
// with a name is enough, as for a rule that denies.
func coversHTTP(rule *l7rules.HTTPRule, r *l7rules.HTTPRequest, any bool) bool {
	if rule.Method != nil && !rule.Method.Match(r.Method) || rule.Path != nil && !rule.Path.Match(r.Path) || rule.Host != nil && !rule.Host.Match(r.Host) {
		return false
	}
	for _, h := range rule.Headers {
		there, equal := 0, 0
		for _, f := range r.Header {
			if strings.EqualFold(string(f.Name), h.Name) {
				there++
				if string(f.Value) == h.Value {
					equal++
				}
			}
		}
		if there == 0 || h.Exact && (equal == 0 || there > 1 && !any) {
			return false
		}
	}
	return true
}

// requests reads what stands behind http, grpc, dns, sni or kafka.
func (p *claimParser) requests(word string) (*Requests, error) {
	switch word {
	case "http":
		return p.http()
	case "grpc":
		service, method, ok := strings.Cut(p.argument(), "/")
		if !ok || service == "" || method == "" {
			return nil, fmt.Errorf("write grpc pkg.Service/Method; * is every one")
		}
		r, err := l7rules.NewGRPCRule(l7rules.Origin{}, service, method)
		return &Requests{rules: requestRules{protocol: l7rules.HTTP, http: []*l7rules.HTTPRule{&r}}}, err
	case "kafka":
		return p.kafka()
	}
	n, err := match.CompileNamePattern(p.argument())
	protocol := l7rules.DNS
	if word == "sni" {
		protocol = l7rules.TLS
	}
	return &Requests{rules: requestRules{protocol: protocol, names: []l7rules.NameRule{{Name: n}}}}, err
}

func (p *claimParser) http() (*Requests, error) {
	if len(p.words) < 2 {
		return nil, fmt.Errorf("write http METHOD PATH, each a regular expression: http DELETE /.*")
	}
	r := &l7rules.HTTPRule{}
	var err error
	for _, f := range []struct {
		name  string
		field **match.Pattern
	}{{"method", &r.Method}, {"path", &r.Path}} {
		if *f.field, err = match.Compile(p.argument()); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if h, ok := p.next("host"); ok {
		if r.Host, err = match.Compile(h); err != nil {
			return nil, fmt.Errorf("host: %w", err)
		}
	}
	for {
		h, ok := p.next("header")
		if !ok {
			break
		}
		name, value, exact := strings.Cut(h, ":")
		if name == "" {
			return nil, fmt.Errorf("header: write a name, or \"Name: value\"")
		}
		r.Headers = append(r.Headers, l7rules.HeaderMatch{Name: name, Value: strings.TrimSpace(value), Exact: exact})
	}
	return &Requests{rules: requestRules{protocol: l7rules.HTTP, http: []*l7rules.HTTPRule{r}}}, nil
}

func isKeyword(word string) bool {
	word, _, _ = strings.Cut(word, "/")
	return slices.Contains([]string{"from", "to", "tcp", "udp", "sctp", "http", "grpc", "dns", "sni", "kafka"}, word)
}

// kafka reads API [RESOURCE]: API a name, a number or *, RESOURCE topic:NAME, group:NAME,
// transaction:NAME or cluster; NAME may end in *. A name alone is that of a topic.
func (p *claimParser) kafka() (*Requests, error) {
	api := p.argument()
	c := &kafkaClaim{}
	if api != "*" {
		key, ok := l7rules.KafkaAPIKey(api)
		if n, err := strconv.ParseInt(api, 10, 16); err == nil {
			key, ok = int16(n), true
		}
		if !ok {
			return nil, fmt.Errorf("%q is no request: a name such as produce or fetch, a number, or *", api)
		}
		c.key = &key
	}
	if len(p.words) > 0 && !isKeyword(p.words[0]) {
		word := p.argument()
		kind, name, ok := strings.Cut(word, ":")
		if !ok {
			kind, name = "topic", word
		}
		resource, known := map[string]l7rules.KafkaResource{"topic": l7rules.KafkaTopic, "group": l7rules.KafkaGroup, "transaction": l7rules.KafkaTransaction}[kind]
		if word == "cluster" {
			resource, name, known = l7rules.KafkaCluster, "", true
		} else if name == "" {
			known = false
		}
		if !known {
			return nil, fmt.Errorf("%q: write topic:NAME, group:NAME, transaction:NAME or cluster", word)
		}
		c.resource = &resource
		c.name.Value, c.name.Prefix = strings.CutSuffix(name, "*")
	}
	return &Requests{rules: requestRules{protocol: l7rules.Kafka, kafka: []*l7rules.KafkaRule{c.rule()}}, kafka: c}, nil
}
