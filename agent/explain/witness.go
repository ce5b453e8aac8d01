package explain

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/agent/config"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/prove"
)

// knownOf is what a configuration tells a proof of. It may be nil. only says that nobody
// else is there.
func knownOf(c *config.Config, only bool) prove.Known {
	k := prove.Known{Only: only}
	if c == nil {
		return k
	}
	for _, w := range c.Workloads {
		k.Workloads = append(k.Workloads, prove.End{ID: identity.FirstEndpoint, Labels: w.Labels, Name: w.Name})
	}
	for _, a := range c.Addresses {
		k.Addresses = append(k.Addresses, prove.DeclaredAddress{Name: a.Name, Labels: a.Labels, CIDRs: a.CIDRs})
	}
	k.Namespaces = c.Namespaces
	return k
}

// queryOf is the question whose answer a witness claims to know.
func queryOf(f *prove.Flow) (Query, error) {
	q := Query{From: strings.Trim(f.From.String(), "[]"), To: f.To.String() + ":" + strconv.Itoa(int(f.Port)), Protocol: protocolName(f.Proto), Raw: f.Raw}
	if f.To.Addr.IsValid() && f.To.Names == nil {
		q.To = net.JoinHostPort(f.To.Addr.String(), strconv.Itoa(int(f.Port)))
	}
	switch r := f.Request.(type) {
	case nil:
	case *l7rules.HTTPRequest:
		q.HTTP = string(r.Method) + " " + string(r.Path)
		host := string(r.Host)
		q.Host = &host
		for _, h := range r.Header {
			q.Headers = append(q.Headers, string(h.Name)+": "+string(h.Value))
		}
	case *l7rules.DNSQuery:
		q.DNS = r.Name
	case *l7rules.ClientHello:
		q.SNI = &r.ServerName
	case *l7rules.KafkaRequest:
		q.Kafka = kafkaText(r)
	default:
		return q, fmt.Errorf("ask about a %s: no such question", r.Type())
	}
	return q, nil
}

// Command is the command line that asks the question, without its policies.
func (q *Query) Command() string {
	text := "--from " + shell(q.From) + " --to " + shell(q.To)
	if q.Protocol != "" && q.Protocol != "tcp" {
		text += " --protocol " + q.Protocol
	}
	if q.HTTP != "" {
		text += " --http " + shell(q.HTTP)
	}
	if q.Host != nil && *q.Host != "" {
		text += " --host " + shell(*q.Host)
	}
	for _, h := range q.Headers {
		text += " --header " + shell(h)
	}
	for _, f := range []struct{ flag, value string }{{"grpc", q.GRPC}, {"dns", q.DNS}, {"kafka", q.Kafka}} {
		if f.value != "" {
			text += " --" + f.flag + " " + shell(f.value)
		}
	}
	if q.SNI != nil {
		text += " --sni " + shell(*q.SNI)
	}
	if q.Raw {
		text += " --raw"
	}
	return text
}

// shell quotes a word for a shell where it needs that.
func shell(s string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("=,:./_-@%+", c)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func protocolName(proto uint8) string {
	switch proto {
	case l7rules.ProtoUDP:
		return "udp"
	case l7rules.ProtoSCTP:
		return "sctp"
	}
	return "tcp"
}

// kafkaText is what parseKafka reads.
func kafkaText(r *l7rules.KafkaRequest) string {
	text := l7rules.KafkaAPIName(r.APIKey)
	switch r.Resource {
	case l7rules.KafkaTopic:
		text += " topic:" + r.Name
	case l7rules.KafkaGroup:
		text += " group:" + r.Name
	case l7rules.KafkaTransaction:
		text += " transaction:" + r.Name
	case l7rules.KafkaCluster:
		text += " cluster"
	}
	if r.APIVersion != 0 {
		text += " version:" + strconv.Itoa(int(r.APIVersion))
	}
	if r.ClientID != "" {
		text += " client:" + r.ClientID
	}
	return text
}
