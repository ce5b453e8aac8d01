package prove

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// nameExpr is a regular expression that matches what a pattern does, in hostNames.
func nameExpr(n match.Name) string {
	const star = "[a-z0-9_-]*"
	key := n.Key()
	switch {
	case key == "*":
		return ".*"
	case key == "":
		return nothing
	}
	below := ""
	if rest, ok := strings.CutPrefix(key, "**."); ok {
		below, key = "(?:[a-z0-9_-]+[.])+", rest
	}
	parts := strings.Split(key, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return below + strings.Join(parts, star)
}

// nameClasses finds every set of patterns that one host's name matches at once, with a
// name of each.
func (b *bench) nameClasses(names []l7rules.NameRule) ([]word, error) {
	var patterns []*match.Pattern
	var places []l7rules.Origin
	for _, n := range names {
		p, err := match.Compile(nameExpr(n.Name))
		if err != nil {
			return nil, fmt.Errorf("compile name %s: %w", n.Name, err)
		}
		patterns, places = append(patterns, p), append(places, n.Origin)
	}
	list, err := b.words(b.names, patterns)
	var e *tooLarge
	if isTooLarge(err, &e) {
		return nil, e.unknown("names", patterns, places)
	}
	return list, err
}

// nameRequests are questions to a name server, or ClientHellos, that stand for all.
func (b *bench) nameRequests(protocol l7rules.Protocol, names []l7rules.NameRule) ([]flow.Request, error) {
	list, err := b.nameClasses(names)
	if err != nil {
		return nil, err
	}
	var requests []flow.Request
	for _, w := range list {
		if protocol == l7rules.TLS {
			requests = append(requests, &l7rules.ClientHello{ServerName: w.value})
		} else {
			requests = append(requests, &l7rules.DNSQuery{Name: w.value, QType: 1})
		}
	}
	if protocol == l7rules.TLS {
		return append(requests, &l7rules.ClientHello{}), nil
	}
	// The root, and what is no name of a host.
	return append(requests, &l7rules.DNSQuery{Name: ".", QType: 1}, &l7rules.DNSQuery{Name: `\000.a`, QType: 1}), nil
}

// maxToldSets bounds the sets of names that one address was told for.
const maxToldSets = 256

// toldNames are the sets of names that an address outside may have been told for, as far
// as peers by name can tell them apart, the empty one left out. Where every such peer is
// allowed, one name at a time is enough: more of them open what each opens. Where some are
// denied, or a claim is about some, all combinations count.
func (b *bench) toldNames(names []l7rules.NameRule, combine bool) ([][]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	list, err := b.nameClasses(names)
	if err != nil {
		return nil, err
	}
	type told struct {
		patterns set
		names    []string
	}
	var all []told
	seen := map[string]bool{newSet(len(names)).key(): true}
	add := func(t told) {
		if !seen[t.patterns.key()] {
			seen[t.patterns.key()] = true
			all = append(all, t)
		}
	}
	for _, w := range list {
		add(told{w.patterns, []string{w.value}})
	}
	singles := len(all)
	for i := 0; combine && i < len(all); i++ {
		for j := range singles {
			both := all[i].patterns.clone()
			for k := range both {
				both[k] |= all[j].patterns[k]
			}
			add(told{both, append(slices.Clone(all[i].names), all[j].names...)})
			if len(all) > maxToldSets {
				return nil, &Unknown{fmt.Sprintf("peers by name fall into more than %d kinds", maxToldSets), names[0].Origin}
			}
		}
	}
	sets := make([][]string, len(all))
	for i := range all {
		sets[i] = all[i].names
	}
	return sets, nil
}
