package explain

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
	"github.com/weir-proxy/weir/proxy/httpproxy"
)

// request takes what is sent from a query.
func (j *judge) request(q Query, to who) error {
	asked := map[string]bool{"http": q.HTTP != "", "grpc": q.GRPC != "", "dns": q.DNS != "", "sni": q.SNI != nil, "kafka": q.Kafka != "", "raw": q.Raw}
	for _, flag := range []string{"http", "grpc", "dns", "sni", "kafka", "raw"} {
		if asked[flag] && j.asked != "" {
			return fmt.Errorf("--%s: one of --http, --grpc, --dns, --sni, --kafka and --raw: --%s is there too", flag, j.asked)
		} else if asked[flag] {
			j.asked = flag
		}
	}
	if (q.Host != nil || len(q.Headers) > 0) && j.asked != "http" && j.asked != "grpc" {
		return fmt.Errorf("--host and --header say more of a request: give --http 'METHOD PATH' or --grpc too")
	}
	var err error
	switch j.asked {
	case "http":
		var method, path string
		if parts := strings.Fields(q.HTTP); len(parts) == 2 {
			method, path = parts[0], parts[1]
		} else {
			return fmt.Errorf("--http: %q is no request: write 'METHOD PATH', for example 'GET /public'", q.HTTP)
		}
		j.req, j.unreadable, err = httpRequest(method, path, q, to, j.port)
	case "grpc":
		service, method, ok := strings.Cut(q.GRPC, "/")
		if !ok || service == "" || method == "" || strings.ContainsAny(q.GRPC, " ?#") || strings.Contains(method, "/") {
			return fmt.Errorf("--grpc: %q is no call: write 'pkg.Service/Method'", q.GRPC)
		}
		var r flow.Request
		r, j.unreadable, err = httpRequest("POST", "/"+q.GRPC, q, to, j.port)
		if h, ok := r.(*l7rules.HTTPRequest); ok {
			h.Proto = "HTTP/2"
			j.req = &l7rules.GRPCRequest{HTTPRequest: *h}
		}
	case "dns":
		j.req, err = parseDNS(q.DNS)
	case "sni":
		if *q.SNI != "" && !match.IsName(*q.SNI) {
			return fmt.Errorf("--sni: %q is no name", *q.SNI)
		}
		j.req = &l7rules.ClientHello{ServerName: *q.SNI}
	case "kafka":
		j.req, err = parseKafka(q.Kafka)
	}
	return err
}

// httpRequest makes a request as the proxy would read it. unreadable says that it would
// refuse to; err that the query is none.
func httpRequest(method, path string, q Query, to who, port uint16) (r flow.Request, unreadable, err error) {
	host := ""
	switch {
	case q.Host != nil:
		host = *q.Host
	case len(to.peer.Names) > 0:
		if host = to.peer.Names[0]; port != 80 {
			host += ":" + strconv.Itoa(int(port))
		}
	case to.addr.IsValid():
		if host = netip.AddrPortFrom(to.addr, port).String(); port == 80 {
			host = strings.TrimSuffix(host, ":80")
		}
	}
	head := method + " " + path + " HTTP/1.1\r\nHost: " + host + "\r\n"
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
	parsed, unreadable := httpproxy.Canonical([]byte(head + "\r\n"))
	if unreadable != nil {
		return nil, unreadable, nil
	}
	return parsed, nil, nil
}

// parseDNS reads a name, and the type of records after it.
func parseDNS(s string) (flow.Request, error) {
	words := strings.Fields(s)
	q := &l7rules.DNSQuery{QType: 1}
	switch len(words) {
	case 2:
		t, ok := l7rules.QTypeNumber(strings.ToUpper(words[1]))
		if !ok {
			return nil, fmt.Errorf("--dns: %q is no type of records: A, AAAA, TXT, ... or TYPE123", words[1])
		}
		q.QType = t
		fallthrough
	case 1:
		q.Name = words[0]
	default:
		return nil, fmt.Errorf("--dns: %q is no question: write a name, or 'NAME TYPE'", s)
	}
	return q, nil
}

// parseKafka reads API [RESOURCE] [version:N] [client:ID], where API is a name such as
// produce, or a number, and RESOURCE topic:NAME, group:NAME, transaction:NAME, or cluster.
// A name alone is that of a topic. Without RESOURCE the request names nothing.
func parseKafka(s string) (flow.Request, error) {
	words := strings.Fields(s)
	r := &l7rules.KafkaRequest{Resource: l7rules.KafkaNone}
	if len(words) == 0 {
		return nil, fmt.Errorf("--kafka: write 'API RESOURCE', for example 'produce orders'")
	}
	key, ok := l7rules.KafkaAPIKey(words[0])
	if n, err := strconv.ParseInt(words[0], 10, 16); err == nil {
		key, ok = int16(n), true
	}
	if !ok {
		return nil, fmt.Errorf("--kafka: %q is no request: one of %s, or a number", words[0], strings.Join(l7rules.KafkaAPINames(), ", "))
	}
	r.APIKey = key
	for _, w := range words[1:] {
		kind, value, ok := strings.Cut(w, ":")
		resource := map[string]l7rules.KafkaResource{"topic": l7rules.KafkaTopic, "group": l7rules.KafkaGroup, "transaction": l7rules.KafkaTransaction}[kind]
		switch {
		case ok && kind == "client":
			r.ClientID = value
			continue
		case ok && kind == "version":
			n, err := strconv.ParseInt(value, 10, 16)
			if err != nil || n < 0 {
				return nil, fmt.Errorf("--kafka: %q is no version", value)
			}
			r.APIVersion = int16(n)
			continue
		case !ok && w == "cluster":
		case !ok:
			resource, value = l7rules.KafkaTopic, w
		case resource == 0:
			return nil, fmt.Errorf("--kafka: %q: write topic:NAME, group:NAME, transaction:NAME, cluster, version:N or client:ID", w)
		}
		if r.Resource != l7rules.KafkaNone {
			return nil, fmt.Errorf("--kafka: %q: a request is judged by one resource: ask about each alone", w)
		}
		r.Resource, r.Name = resource, value
	}
	return r, nil
}
