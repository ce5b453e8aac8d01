package l7rules

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// decideOneByOne is what decideHTTP means: rule after rule.
func decideOneByOne(rs *Ruleset, r *HTTPRequest) Decision {
	var deny, allow *Decision
	for i := range rs.deny {
		if rs.deny[i].matches(r) {
			deny = rs.deny[i].decision
			break
		}
	}
	best, nearest := -1, -1
	for i := range rs.allow {
		if rs.all == nil && allow == nil && rs.allow[i].matches(r) {
			d := *rs.allow[i].decision
			if len(rs.allow[i].log) > 0 && deny == nil {
				d.Reason = rs.allow[i].logged(r)
			}
			allow = &d
		}
		if n := rs.allow[i].matched(r); n > best {
			best, nearest = n, i
		}
	}
	d, ok := rs.settle(deny, allow)
	if !ok {
		d.Reason = "no rule allows " + clip(r.Method) + " " + clip(r.Path)
		if nearest >= 0 {
			h := &rs.allow[nearest]
			d.Reason += "; nearest " + h.decision.Policy + ": " + h.differs(r, best)
		}
	}
	return d
}

// However many the rules, verdict, rule and reason are those of trying one after another.
func TestIndexDecidesAsRuleByRule(t *testing.T) {
	methods := []string{"", "", "GET", "GET|HEAD", "P.*", "[A-Z]+", "DELETE"}
	paths := []string{"", "/.*", "/a", "/a/.*", "/a/b", "/a/[^/]+/c", "/(a|b)/[0-9]+", ".*c", "/.*/b/.*", "/é.*", `/a\b.*`, "/a([/?].*)?", "(?i)/A", "/.*a.{12}", "/.*b.{14}"}
	hosts := []string{"", "", "", "h", `.*\.test`, `a\.test(:[0-9]+)?`, "[a-z]+"}
	headers := [][]HeaderMatch{nil, nil, nil, {{Name: "X", Value: "1", Exact: true}}, {{Name: "x"}}, {{Name: "X", Value: "2", Exact: true}, {Name: "Y"}}}
	values := [][]string{{"GET", "HEAD", "POST", "PUT", "DELETE", "get"},
		{"/", "/a", "/a/", "/a/b", "/a/b/c", "/b/12", "/a/12", "/x/b/y", "/é", "/é/\n", "/a?q", "/A", "/a\nb", "/abcdefghijklm", "/c/a123456789012", "*", ""},
		{"", "h", "x.test", "a.test", "a.test:80"}}
	sent := [][]HeaderField{nil, {{[]byte("x"), []byte("1")}}, {{[]byte("x"), []byte("2")}}, {{[]byte("x"), []byte("1")}, {[]byte("X"), []byte("2")}}, {{[]byte("X"), []byte("2")}, {[]byte("y"), nil}}}
	known := map[string]*match.Pattern{}
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 9))
		pick := func(list []string) string { return list[rng.IntN(len(list))] }
		rs := &Ruleset{protocol: HTTP}
		n := 1 + rng.IntN(3*fewRules)
		denied := flow.Dropped
		if rng.IntN(3) == 0 {
			denied = flow.Audit
			rs.audited = rng.IntN(2) == 0
		}
		if rng.IntN(4) == 0 {
			n = 200
		}
		for i := range n {
			path := pick(paths)
			if rng.IntN(2) == 0 {
				path += fmt.Sprint(rng.IntN(10))
			}
			rule := HTTPRule{Method: wellKnown(known, pick(methods)), Path: wellKnown(known, path), Host: wellKnown(known, pick(hosts)), Headers: headers[rng.IntN(len(headers))]}
			if rng.IntN(4) == 0 {
				rule.Log = headers[rng.IntN(len(headers))]
			}
			if rng.IntN(5) == 0 {
				rs.add(&PortRule{HTTP: []HTTPRule{rule}}, true, Decision{Policy: fmt.Sprint("deny ", i), Verdict: denied})
			} else {
				rs.add(&PortRule{HTTP: []HTTPRule{rule}}, false, Decision{Verdict: flow.Forwarded, Policy: fmt.Sprint("allow ", i)})
			}
		}
		switch rng.IntN(6) {
		case 0:
			rs.all = &Decision{Verdict: flow.Forwarded, Policy: "all"}
		case 1:
			rs.open = &Decision{Verdict: flow.Forwarded, Reason: openReason}
		}
		for range 100 {
			path := pick(values[1])
			if rng.IntN(3) == 0 {
				path += fmt.Sprint(rng.IntN(10))
			}
			r := &HTTPRequest{Method: []byte(pick(values[0])), Path: []byte(path), Host: []byte(pick(values[2])), Header: sent[rng.IntN(len(sent))]}
			if got, want := rs.Decide(r), decideOneByOne(rs, r); got != want {
				t.Fatalf("seed %d: %s: %+v, one by one %+v", seed, r.AppendText(nil), got, want)
			}
		}
	}
}

// A request that matches many patterns of each field at once.
func TestIndexManyMatches(t *testing.T) {
	known := map[string]*match.Pattern{}
	rs := &Ruleset{protocol: HTTP}
	for i := range 300 {
		rule := HTTPRule{Method: wellKnown(known, fmt.Sprintf("GET|M%d", i%40)), Path: wellKnown(known, fmt.Sprintf("/.*|P%d", i%50)), Host: wellKnown(known, fmt.Sprintf("h.*|H%d", i)),
			Headers: []HeaderMatch{{Name: "key", Value: fmt.Sprint(i), Exact: true}}}
		rs.allow = append(rs.allow, newHTTPRule(&rule, &Decision{Verdict: flow.Forwarded, Policy: fmt.Sprint(i)}))
	}
	for i := range 310 {
		r := &HTTPRequest{Method: []byte("GET"), Path: []byte("/x"), Host: []byte("host"), Header: []HeaderField{{[]byte("Key"), fmt.Append(nil, i)}}}
		if got, want := rs.Decide(r), decideOneByOne(rs, r); got != want {
			t.Fatalf("key %d: %+v, one by one %+v", i, got, want)
		}
	}
	r := &HTTPRequest{Method: []byte("GET"), Path: []byte("/x"), Host: []byte("host"), Header: []HeaderField{{[]byte("key"), []byte("299")}}}
	if n := testing.AllocsPerRun(100, func() { rs.Decide(r) }); n != 0 && slow == 1 { // with the race detector a pool forgets
		t.Errorf("%v allocations", n)
	}
}

func TestDecideHTTPAllocatesNothing(t *testing.T) {
	for shape := range ruleMakers {
		for _, n := range []int{10, 1000} {
			rs, requests := manyRules(t, shape, n)
			for _, r := range requests { // patterns are prepared when they are first asked
				if !rs.Decide(r).Allowed() {
					t.Fatalf("%s: %s", shape, r.AppendText(nil))
				}
			}
			if k := testing.AllocsPerRun(n, func() { rs.Decide(requests[rand.IntN(n)]) }); k != 0 && slow == 1 {
				t.Errorf("%s, %d rules: %v allocations", shape, n, k)
			}
		}
	}
}
