package prove

import (
	"fmt"

	"github.com/weir-proxy/weir/l7rules/match"
)

// bench is what all questions of one answer share: the domains of requests' fields, and
// what was worked out before. It is for one goroutine.
type bench struct {
	methods, hosts, paths, pathsOrAsterisk, names *domain

	options []*match.Pattern // the method that may ask for "*"

	budget int // of requests and of automata that are too large: see maxBudget

	known map[string][]word      // by domain and patterns
	lists map[string]requestList // by the texts of rules
}

// Costs of what an answer keeps or waits for. An automaton that is too large takes a second
// or two, a request some hundred bytes.
const (
	maxBudget   = 1_000_000
	requestCost = 1
	largeCost   = maxBudget / 5
)

func newBench() *bench {
	return &bench{
		budget:  maxBudget,
		methods: methods(), hosts: hosts(), paths: paths(false), pathsOrAsterisk: paths(true), names: hostNames(),
		options: []*match.Pattern{newDomain("", "OPTIONS", "").within},
		known:   map[string][]word{}, lists: map[string]requestList{},
	}
}

// wellKnown are methods that people know, and put to use before shorter ones.
var wellKnown = [...]string{"GET", "POST", "DELETE", "PUT", "HEAD", "PATCH", "OPTIONS"}

// words is the function of that name with a memory.
func (b *bench) words(d *domain, patterns []*match.Pattern) ([]word, error) {
	key := d.name
	for _, p := range patterns {
		key += "\x00" + p.String()
	}
	if list, ok := b.known[key]; ok {
		return list, nil
	}
	if b.budget <= 0 {
		return nil, &tooLarge{-1, "too much was too large before"}
	}
	list, err := words(d, patterns)
	if err != nil {
		b.budget -= largeCost
		return nil, err
	}
	if d == b.methods {
		familiar(list, patterns)
	}
	b.known[key] = list
	return list, nil
}

// familiar replaces witnesses by well-known methods of the same class.
func familiar(list []word, patterns []*match.Pattern) {
	byKey := map[string]int{}
	for i, w := range list {
		byKey[w.patterns.key()] = i
	}
	taken := map[int]bool{}
	for _, m := range wellKnown {
		matched := newSet(max(len(patterns), 1))
		for i, p := range patterns {
			if p.Match([]byte(m)) {
				matched.add(i)
			}
		}
		if i, ok := byKey[matched.key()]; ok && !taken[i] {
			list[i].value, taken[i] = m, true
		}
	}
}

// text is a pattern as a part of a key.
func text(p *match.Pattern) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprintf("%q", p.String())
}
