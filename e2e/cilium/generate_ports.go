package cilium

import (
	"fmt"
	"slices"
	"strconv"
)

// Ports on which documents have rules of other protocols than HTTP, far from those that
// have them.
const (
	dnsPort   = 20053
	kafkaPort = 20092
	tlsPort   = 20443
)

// portRule is one element of toPorts.
func (g generator) portRule(direction string, deny bool) any {
	if g.oneIn(40) {
		return pick[any](g, document{}, document{"ports": nil}, document{"ports": []any{}})
	}
	p := document{}
	if !deny && g.oneIn(8) {
		g.otherProtocol(p, direction)
		return p
	}
	http := !deny && g.IntN(3) > 0
	p["ports"] = g.list(1, 3, func() any { return g.port(http) })
	switch {
	case http:
		p["rules"] = document{"http": g.httpRules()}
	case !deny && g.oneIn(20):
		p["rules"] = pick[any](g, nil, document{"http": []any{}})
	}
	return p
}

// otherProtocol fills in an element of toPorts, without a rule twice.
func (g generator) otherProtocol(p document, direction string) {
	for g.anyOtherProtocol(p, direction); hasRuleTwice(p); {
		g.anyOtherProtocol(p, direction)
	}
}

func (g generator) anyOtherProtocol(p document, direction string) {
	clear(p)
	port := func(n int, protocols ...string) []any {
		return []any{document{"port": strconv.Itoa(n), "protocol": pick(g, protocols...)}}
	}
	switch g.IntN(6) {
	case 0:
		p["ports"] = port(kafkaPort, "TCP")
		p["rules"] = document{"kafka": g.list(1, 2, func() any {
			return pick(g, document{"topic": "a"}, document{"role": "produce"}, document{"role": "consume", "topic": "b"}, document{"apiKey": "fetch"}, document{"clientID": "c"}, document{"apiVersion": "1"})
		})}
	case 1:
		p["ports"] = port(tlsPort, "TCP")
		p["serverNames"] = []any{pick(g, "a.test", "*.a.test", "**.a.test")}
	default:
		p["ports"] = port(dnsPort, "UDP", "ANY", "ANY", "TCP")
		if direction == "egress" {
			p["rules"] = document{"dns": g.list(1, 3, func() any { return g.nameRule() })}
		}
	}
}

// protocolsAstray reports whether request rules stand beside ports that are not for their
// protocol: then there is no telling which requests to make there.
func protocolsAstray(doc document) bool {
	for _, p := range places(doc) {
		m, ok := p.value.(document)
		if !ok {
			continue
		}
		rules, _ := m["rules"].(document)
		want := map[int]bool{dnsPort: rules["dns"] != nil, kafkaPort: rules["kafka"] != nil, tlsPort: m["serverNames"] != nil}
		other := want[dnsPort] || want[kafkaPort] || want[tlsPort]
		if !other && rules["http"] == nil {
			continue
		}
		list, _ := m["ports"].([]any)
		for _, element := range list {
			numbers := portsIn([]document{{"ports": element}})
			for _, special := range []int{dnsPort, kafkaPort, tlsPort} {
				covered := len(numbers) > 0 && slices.Min(numbers) <= special && special <= slices.Max(numbers)
				if covered != want[special] {
					return true
				}
			}
		}
	}
	return false
}

// nameRule is an element of dns and toFQDNs.
func (g generator) nameRule() document {
	if g.oneIn(2) {
		return document{"matchName": pick(g, "a.test", "www.a.test", "A.test", "a.test.", "b.test", "test")}
	}
	return document{"matchPattern": pick(g, "*.a.test", "**.a.test", "*.test", "*", "*a.test", "sub*.a.test", "**", "*.*.a.test", "**.test.", "w*w.a.test", "*.A.test", "a.*")}
}

// ports are few, so that rules meet, with all the ends of the range.
var ports = []int{80, 80, 80, 81, 85, 90, 443, 1, 2, 8080, 32768, 65534, 65535, dnsPort, kafkaPort, tlsPort}

func (g generator) port(http bool) document {
	first := pick(g, ports...)
	if http {
		first = pick(g, ports[:len(ports)-3]...)
	}
	p := document{"port": strconv.Itoa(first), "protocol": "TCP"}
	if !http {
		switch g.IntN(8) {
		case 0:
			delete(p, "protocol")
		case 1:
			p["protocol"] = "ANY"
		case 2, 3:
			p["protocol"] = "UDP"
		}
		if g.oneIn(10) {
			p["port"] = "0"
			return p
		}
	}
	switch g.IntN(8) {
	case 0, 1:
		p["endPort"] = min(65535, first+last(g, http))
	case 2:
		p["endPort"] = pick[any](g, 0, nil)
	}
	return p
}

func (g generator) httpRules() []any {
	if g.oneIn(15) { // so many that they are indexed, each with a path of its own
		i := -1
		return g.list(13, 40, func() any {
			i++
			r := g.httpRule()
			r["path"] = fmt.Sprintf(pick(g, "/n%d", "/n%d", "/n%d/.*", "/n?%d", "(?i)/N%d"), i)
			return r
		})
	}
	for {
		all := g.list(1, 3, func() any { return g.httpRule() })
		if !hasRuleTwice(document{"http": all}) {
			return all
		}
	}
}

// last is how many ports a range has behind the first: with HTTP rules it stays away from
// the ports of other protocols.
func last(g generator, http bool) int {
	if http {
		return pick(g, 0, 1, 2, 5, 10, 100)
	}
	return pick(g, 0, 1, 2, 5, 10, 100, 1000, 40000)
}

// hasRuleTwice reports whether a list of request rules has one of them twice. Cilium takes two lists of
// one length for equal when each element of the first is in the second: what such a list
// means to it depends on the order of policies.
func hasRuleTwice(doc document) bool {
	for _, p := range places(doc) {
		all, ok := p.value.([]any)
		if p.key != "http" && p.key != "dns" && p.key != "kafka" || !ok {
			continue
		}
		seen := map[string]bool{}
		for _, r := range all {
			rule, ok := clone(r).(document)
			if !ok {
				continue
			}
			for k, v := range rule {
				if list, ok := v.([]any); v == nil || v == "" || ok && len(list) == 0 {
					delete(rule, k)
				}
			}
			key := text(rule)
			if seen[key] {
				return true
			}
			seen[key] = true
		}
	}
	return false
}

var (
	methodPatterns = []string{"GET", "GET", "GET", "POST", "GET|HEAD", "P.*", "get", "(?i)get", "[A-Z]{3}", "^GET$", "GET|", "DELETE"}
	pathPatterns   = []string{"/", "/a", "/a", "/b", "/a/.*", "/a.*", "/public([/?].*)?", "^/a$", "/a|/b", "/[ab]+", "(?i)/A", "/x{1,3}", `/\d+`, ".*", "/.*",
		"/a/b", `/a\?q=1`, "/(a|b)/c", "/[^/]+/c", "/a$|/b/.*", "a", "/.", `/\.`, "/a/?", "(/a)+", `/\x61`, `\Q/a.b`, "/a.b", `(?s)/a.*`, `/\pL`, "/a*?", "/é"}
	hostPatterns   = []string{`api\.test`, "api.test", `api\.test(:[0-9]+)?`, `.*\.test`, "[a-z]+", "api|web"}
	headerPatterns = []string{"X-A: 1", "X-A: 2", "X-A", "x-a: 1", "X-B", "X-B 2", "User-Agent: a b", "X-A: 1,2", "X-B: a:b"}
)

func (g generator) httpRule() document {
	r := document{}
	if g.IntN(2) > 0 {
		r["method"] = pick(g, methodPatterns...)
	}
	if g.IntN(3) > 0 {
		r["path"] = pick(g, pathPatterns...)
	}
	if g.oneIn(6) {
		r["host"] = pick(g, hostPatterns...)
	}
	if g.oneIn(6) {
		first := pick(g, headerPatterns...)
		r["headers"] = []any{first}
		if second := pick(g, headerPatterns...); g.oneIn(3) && second != first {
			r["headers"] = []any{first, second}
		}
	}
	if g.oneIn(15) {
		m := document{"name": pick(g, "X-A", "x-b")}
		if g.oneIn(2) {
			m["value"] = pick(g, "1", "2", "a b")
		}
		if g.oneIn(3) {
			m["mismatch"] = "LOG"
		}
		r["headerMatches"] = []any{m}
	}
	return r
}
