package prove

import (
	"fmt"
	"strings"

	"github.com/weir-proxy/weir/l7rules/match"
)

// bench is what all questions of one answer share: the domains of requests' fields, and
// what was worked out before. It is for one goroutine.
type bench struct {
	methods, hosts, paths, pathsOrAsterisk, names *domain

	budget int // instructions that automata may still look at

	known map[string][]word      // by domain and patterns
	lists map[string]requestList // by the texts of rules
}

func newBench() *bench {
	return &bench{
		budget:  maxBudget,
		methods: methods(), hosts: hosts(), paths: paths(false), pathsOrAsterisk: paths(true), names: hostNames(),
		known: map[string][]word{}, lists: map[string]requestList{},
	}
}

// wellKnown are methods that people know, and put to use before shorter ones.
var wellKnown = [...]string{"GET", "POST", "DELETE", "PUT", "HEAD", "PATCH", "OPTIONS"}

// words is the function of that name with a memory.
func (b *bench) words(d *domain, patterns []string) ([]word, error) {
	key := d.name + "\x00" + strings.Join(patterns, "\x00")
	if list, ok := b.known[key]; ok {
		return list, nil
	}
	list, err := words(d, patterns, &b.budget)
	if err != nil {
		return nil, err
	}
	if d == b.methods {
		if list, err = familiar(list, patterns); err != nil {
			return nil, err
		}
	}
	b.known[key] = list
	return list, nil
}

// familiar replaces witnesses by well-known methods of the same class.
func familiar(list []word, patterns []string) ([]word, error) {
	byKey := map[string]int{}
	for i, w := range list {
		byKey[w.patterns.key()] = i
	}
	taken := map[int]bool{}
	for _, m := range wellKnown {
		matched := newSet(max(len(patterns), 1))
		for i, p := range patterns {
			ok, err := matches(p, m)
			if err != nil {
				return nil, err
			}
			if ok {
				matched.add(i)
			}
		}
		if i, ok := byKey[matched.key()]; ok && !taken[i] {
			list[i].value, taken[i] = m, true
		}
	}
	return list, nil
}

// text is a pattern as a part of a key.
func text(p *match.Pattern) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprintf("%q", p.String())
}

func matches(pattern, value string) (bool, error) {
	p, err := match.Compile(pattern)
	if err != nil {
		return false, fmt.Errorf("read pattern %q: %w", pattern, err)
	}
	return p.Match([]byte(value)), nil
}
