package l7rules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// written is an HTTP rule as somebody writes it.
type written struct {
	method, path, host string
	headers            []HeaderMatch
}

// ruleMakers are shapes of rule sets: rule i, and a request that it alone allows.
var ruleMakers = map[string]func(i int) (written, HTTPRequest){
	// Fixed paths and nothing else.
	"literals": func(i int) (written, HTTPRequest) {
		path := fmt.Sprintf("/api/v1/service-%d/items", i)
		return written{method: "GET", path: path}, HTTPRequest{Method: []byte("GET"), Path: []byte(path)}
	},
	// What users write: fixed paths, prefixes, a wildcard within, alternatives, hosts.
	"mixed": func(i int) (written, HTTPRequest) {
		switch i % 5 {
		case 0:
			path := fmt.Sprintf("/api/v1/service-%d/items", i)
			return written{method: "GET", path: path}, HTTPRequest{Method: []byte("GET"), Path: []byte(path)}
		case 1:
			return written{method: "GET|HEAD", path: fmt.Sprintf("/public/site-%d/.*", i)},
				HTTPRequest{Method: []byte("HEAD"), Path: fmt.Appendf(nil, "/public/site-%d/css/main.css?v=3", i)}
		case 2:
			return written{method: "GET", path: fmt.Sprintf("/api/v1/x-%d/[^/]+/y", i)},
				HTTPRequest{Method: []byte("GET"), Path: fmt.Appendf(nil, "/api/v1/x-%d/order-4711/y", i)}
		case 3:
			return written{method: "PUT", path: fmt.Sprintf("/(a|b)/%d/[0-9]+", i)},
				HTTPRequest{Method: []byte("PUT"), Path: fmt.Appendf(nil, "/b/%d/12345", i)}
		}
		return written{method: "POST", path: "/hooks([/?].*)?", host: fmt.Sprintf(`app-%d\.example\.com(:[0-9]+)?`, i)},
			HTTPRequest{Method: []byte("POST"), Path: []byte("/hooks/push"), Host: fmt.Appendf(nil, "app-%d.example.com", i)}
	},
	// Nothing but the middle of the path tells rules apart.
	"contains": func(i int) (written, HTTPRequest) {
		return written{method: "GET", path: fmt.Sprintf("/.*/word-%d-/.*", i)},
			HTTPRequest{Method: []byte("GET"), Path: fmt.Appendf(nil, "/some/where/word-%d-/in/it", i)}
	},
	// Every rule's method and path match every request; the host decides.
	"hosts": func(i int) (written, HTTPRequest) {
		return written{method: "GET", path: "/.*", host: fmt.Sprintf(`(www\.)?site-%d\.example\.com`, i)},
			HTTPRequest{Method: []byte("GET"), Path: []byte("/index.html"), Host: fmt.Appendf(nil, "www.site-%d.example.com", i)}
	},
	// Every pattern of every rule matches every request; a header decides.
	"headers": func(i int) (written, HTTPRequest) {
		key := fmt.Sprintf("key-%d", i)
		return written{method: "GET|POST", path: "/v1/.*", headers: []HeaderMatch{{Name: "X-Api-Key", Value: key, Exact: true}}},
			HTTPRequest{Method: []byte("GET"), Path: []byte("/v1/things"), Header: []HeaderField{{[]byte("accept"), []byte("*/*")}, {[]byte("x-api-key"), []byte(key)}}}
	},
	// Prefixes within prefixes: a request matches up to a hundred paths.
	"nested": func(i int) (written, HTTPRequest) {
		path := fmt.Appendf(nil, "/%d", i/100)
		for j := range i % 100 {
			path = fmt.Appendf(path, "/%d", j)
		}
		return written{method: "GET", path: string(path) + "/.*", host: fmt.Sprintf("h%d", i)},
			HTTPRequest{Method: []byte("GET"), Path: append(path, "/x"...), Host: fmt.Appendf(nil, "h%d", i)}
	},
}

// wellKnown compiles a pattern once.
func wellKnown(known map[string]*match.Pattern, source string) *match.Pattern {
	if source == "" {
		return nil
	}
	p, ok := known[source]
	if !ok {
		var err error
		if p, err = match.Compile(source); err != nil {
			panic(err)
		}
		known[source] = p
	}
	return p
}

// manyRules returns a set of n rules, and for each a request that it allows, in random order.
func manyRules(tb testing.TB, shape string, n int) (*Ruleset, []*HTTPRequest) {
	tb.Helper()
	known := map[string]*match.Pattern{}
	var rules []HTTPRule
	var requests []*HTTPRequest
	for i := range n {
		w, req := ruleMakers[shape](i)
		rules = append(rules, HTTPRule{Method: wellKnown(known, w.method), Path: wellKnown(known, w.path), Host: wellKnown(known, w.host), Headers: w.headers})
		requests = append(requests, &req)
	}
	ls, err := identity.Workload("", "app=s")
	if err != nil {
		tb.Fatal(err)
	}
	ep, err := Compile([]*Policy{{Namespace: "default", Name: "p", Rules: []Rule{{Peers: Peers{Any: true}, Ports: http80(rules...)}}}}, ls)
	if err != nil {
		tb.Fatal(err)
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { requests[i], requests[j] = requests[j], requests[i] })
	// As a handler's buffer, they are in the cache when they are judged, in contrast to what
	// they are compared with.
	var arena []byte
	hot := func(b *[]byte) {
		arena = append(arena, *b...)
		*b = arena[len(arena)-len(*b):]
	}
	inOrder := make([]HTTPRequest, n)
	for i, req := range requests {
		inOrder[i] = *req
		requests[i] = &inOrder[i]
		arena = slices.Grow(arena, 300)
		hot(&inOrder[i].Method)
		hot(&inOrder[i].Path)
		hot(&inOrder[i].Host)
	}
	return ep.Lookup(flow.Egress, Peer{ID: identity.World}, ProtoTCP, 80).Rules, requests
}

// BenchmarkDecideHTTP is a decision by the number of rules, each request allowed by
// another rule.
func BenchmarkDecideHTTP(b *testing.B) {
	for _, shape := range []string{"literals", "mixed", "contains", "hosts", "headers", "nested"} {
		for _, n := range []int{1, 4, 10, 16, 100, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", shape, n), func(b *testing.B) {
				rs, requests := manyRules(b, shape, n)
				rs.Decide(requests[0]) // the first one compiles the rules
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if !rs.Decide(requests[i]).Allowed() {
						b.Fatal(requests[i])
					}
					if i++; i == len(requests) {
						i = 0
					}
				}
			})
		}
	}
}

// BenchmarkCompileHTTP is what it takes to prepare rules whose patterns are compiled, and
// the memory that stays.
func BenchmarkCompileHTTP(b *testing.B) {
	for _, shape := range []string{"literals", "mixed", "contains", "hosts", "headers", "nested"} {
		b.Run(shape, func(b *testing.B) {
			rs, _ := manyRules(b, shape, 10000)
			var x *httpIndex
			for b.Loop() {
				x = newHTTPIndex(rs.deny, rs.allow)
			}
			b.ReportMetric(float64(x.size()), "bytes")
		})
	}
}

// size is the memory that it takes beside the rules, in bytes: at most some 200 for a rule
// and what match.Set takes for each field.
func (x *httpIndex) size() int {
	n := 16*len(x.uses) + 20*len(x.groups.slots) + 4*len(x.groups.ranks)
	for f := range x.fields {
		n += x.fields[f].set.Size() + 4*(len(x.fields[f].starts)+len(x.fields[f].ranks)) + 16*len(x.fields[f].soles)
	}
	for _, values := range x.headers.values {
		for value := range values {
			n += 32 + len(value)
		}
	}
	return n
}
