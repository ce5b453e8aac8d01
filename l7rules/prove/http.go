package prove

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// maxRequests bounds the classes of requests that one list of rules tells apart.
const maxRequests = 1 << 14

// draft is a request that is not finished, and the rules that match what there is of it.
type draft struct {
	alive   set
	req     l7rules.HTTPRequest
	options bool // the method is OPTIONS, which may ask for "*"
	// repeated names the headers that are there twice: to a rule that denies, one of them
	// with its value is enough, to one that allows it must be the only one.
	repeated string
}

// httpRequests returns requests such that every request there is matches exactly the rules
// that one of them matches. It goes from field to field; drafts that the same rules match
// have the same future, so one of them is enough.
func (b *bench) httpRequests(rules []*l7rules.HTTPRule) ([]flow.Request, error) {
	drafts := []draft{{alive: all(len(rules)), req: l7rules.HTTPRequest{Proto: "HTTP/1.1"}}}
	fields := []func([]*l7rules.HTTPRule, draft) ([]draft, error){b.byMethod, b.byHost, b.byPath}
	for _, name := range headerNames(rules) {
		fields = append(fields, func(rules []*l7rules.HTTPRule, d draft) ([]draft, error) { return byHeader(rules, d, name), nil })
	}
	for _, field := range fields {
		var next []draft
		seen := map[string]bool{}
		for _, d := range drafts {
			more, err := field(rules, d)
			if err != nil {
				return nil, err
			}
			for _, m := range more {
				key := m.repeated + "\x00" + m.alive.key()
				if m.options && len(m.req.Path) == 0 {
					key += "*"
				}
				if seen[key] {
					continue
				}
				seen[key] = true
				if next = append(next, m); len(next) > maxRequests {
					return nil, &Unknown{fmt.Sprintf("the http rules tell more than %d classes of requests apart", maxRequests), rules[len(rules)-1].Origin}
				}
			}
		}
		drafts = next
	}
	list := make([]flow.Request, len(drafts))
	for i := range drafts {
		list[i] = &drafts[i].req
	}
	return list, nil
}

func (b *bench) byMethod(rules []*l7rules.HTTPRule, d draft) ([]draft, error) {
	anyPath := slices.ContainsFunc(rules, func(r *l7rules.HTTPRule) bool { return r.Path != nil })
	var extra []*match.Pattern
	if anyPath {
		extra = b.options
	}
	return b.byPattern(b.methods, extra, rules, d, func(r *l7rules.HTTPRule) *match.Pattern { return r.Method }, func(d *draft, v string) {
		d.req.Method, d.options = []byte(v), anyPath && v == "OPTIONS"
	})
}

func (b *bench) byHost(rules []*l7rules.HTTPRule, d draft) ([]draft, error) {
	return b.byPattern(b.hosts, nil, rules, d, func(r *l7rules.HTTPRule) *match.Pattern { return r.Host }, func(d *draft, v string) { d.req.Host = []byte(v) })
}

func (b *bench) byPath(rules []*l7rules.HTTPRule, d draft) ([]draft, error) {
	domain := b.paths
	if d.options {
		domain = b.pathsOrAsterisk
	}
	return b.byPattern(domain, nil, rules, d, func(r *l7rules.HTTPRule) *match.Pattern { return r.Path }, func(d *draft, v string) { d.req.Path = []byte(v) })
}

// byPattern makes a draft of every class of one field.
func (b *bench) byPattern(domain *domain, extra []*match.Pattern, rules []*l7rules.HTTPRule, d draft,
	field func(*l7rules.HTTPRule) *match.Pattern, fill func(*draft, string)) ([]draft, error) {
	patterns := slices.Clone(extra)
	index := map[string]int{}
	for i, p := range patterns {
		index[p.String()] = i
	}
	var places []l7rules.Origin
	for range extra {
		places = append(places, l7rules.Origin{})
	}
	d.alive.each(func(i int) {
		if p := field(rules[i]); p != nil {
			if _, ok := index[p.String()]; !ok {
				index[p.String()] = len(patterns)
				patterns = append(patterns, p)
				places = append(places, rules[i].Origin)
			}
		}
	})
	list, err := b.words(domain, patterns)
	if err != nil {
		var e *tooLarge
		if isTooLarge(err, &e) {
			return nil, e.unknown(domain.name+" patterns", patterns, places)
		}
		return nil, err
	}
	drafts := make([]draft, 0, len(list))
	for _, w := range list {
		next := draft{alive: d.alive.clone(), req: d.req, options: d.options, repeated: d.repeated}
		d.alive.each(func(i int) {
			if p := field(rules[i]); p != nil && !w.patterns.has(index[p.String()]) {
				next.alive.remove(i)
			}
		})
		fill(&next, w.value)
		drafts = append(drafts, next)
	}
	return drafts, nil
}

func quote(s string) string {
	const shown = 80
	if len(s) > shown {
		s = s[:shown] + "..."
	}
	return fmt.Sprintf("%q", s)
}

// headerNames are the names that rules ask for, in lower case and sorted.
func headerNames(rules []*l7rules.HTTPRule) []string {
	var names []string
	for _, r := range rules {
		for _, h := range r.Headers {
			names = append(names, strings.ToLower(h.Name))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// byHeader makes a draft without the header, one with each value that some rule names, one
// with another value, and one with each value and the other.
func byHeader(rules []*l7rules.HTTPRule, d draft, name string) []draft {
	var values []string
	d.alive.each(func(i int) {
		for _, h := range rules[i].Headers {
			if h.Exact && strings.EqualFold(h.Name, name) {
				values = append(values, h.Value)
			}
		}
	})
	slices.Sort(values)
	values = slices.Compact(values)
	other := another(values)

	next := func(values ...string) draft {
		n := draft{alive: d.alive.clone(), req: d.req, options: d.options, repeated: d.repeated}
		n.req.Header = slices.Clone(d.req.Header)
		for _, v := range values {
			n.req.Header = append(n.req.Header, l7rules.HeaderField{Name: []byte(name), Value: []byte(v)})
		}
		if len(values) > 1 {
			n.repeated += name + ":"
		}
		d.alive.each(func(i int) {
			for _, h := range rules[i].Headers {
				if strings.EqualFold(h.Name, name) && (len(values) == 0 || h.Exact && !slices.Contains(values, h.Value)) {
					n.alive.remove(i)
				}
			}
		})
		return n
	}
	drafts := []draft{next()}
	for _, v := range values {
		drafts = append(drafts, next(v))
	}
	drafts = append(drafts, next(other))
	for _, v := range values {
		drafts = append(drafts, next(v, other))
	}
	return drafts
}

// another is a value that is not in the list.
func another(values []string) string {
	v := "other"
	for slices.Contains(values, v) {
		v += "x"
	}
	return v
}
