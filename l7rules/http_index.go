package l7rules

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/weir-proxy/weir/l7rules/match"
)

// fewRules is how many are as fast tried one by one.
const fewRules = 12

// httpIndex finds the first of many HTTP rules that match a request, and is the same to
// its caller as trying them one by one: one pass over method, path and host tells the
// patterns that match; then it looks at the rules that have no other ones.
type httpIndex struct {
	// A rank is a rule's place among the deny rules and then the allow rules.
	deny, allow []httpRule
	uses        []groupKey // by rank
	fields      [httpFields]indexField
	headers     headerIndex
	order       [httpFields]int // fields, those with the most patterns first
	groups      groups

	many atomic.Bool // a request matched many patterns
	pool sync.Pool   // of *httpMatches, for such ones
}

// The fields of a request that patterns are about.
const (
	fieldMethod = iota
	fieldPath
	fieldHost
	httpFields
)

// indexField is what rules ask of one field. Pattern 0 matches everything.
type indexField struct {
	set *match.Set
	// The ranks of the rules with pattern p, ascending, are ranks[starts[p]:starts[p+1]].
	starts, ranks []uint32
	// The rule of a pattern that one rule has, by pattern; soleNone if none or more do.
	soles []sole
}

// sole is the patterns of a rule, and its rank where they have the header, with solePlain if
// it asks for none.
type sole groupKey

const (
	soleNone  = 1<<32 - 1
	solePlain = 1 << 31
)

func (f *indexField) rules(pattern uint32) []uint32 {
	return f.ranks[f.starts[pattern]:f.starts[pattern+1]]
}

// newHTTPIndex compiles rules: 10,000 of them in about a second.
func newHTTPIndex(deny, allow []httpRule) *httpIndex {
	x := &httpIndex{deny: deny, allow: allow, uses: make([]groupKey, len(deny)+len(allow))}
	for f := range x.fields {
		patterns := []*match.Pattern{nil}
		known := map[string]uint32{}
		ranks := [][]uint32{nil}
		for rank := range x.uses {
			number := uint32(0)
			if p := x.rule(uint32(rank)).pattern(f); p != nil {
				var ok bool
				if number, ok = known[p.String()]; !ok {
					number = uint32(len(patterns))
					known[p.String()] = number
					patterns = append(patterns, p)
					ranks = append(ranks, nil)
				}
			}
			x.uses[rank][f] = number
			ranks[number] = append(ranks[number], uint32(rank))
		}
		field := indexField{set: match.NewSet(patterns)}
		for _, list := range ranks {
			field.starts = append(field.starts, uint32(len(field.ranks)))
			field.ranks = append(field.ranks, list...)
		}
		field.starts = append(field.starts, uint32(len(field.ranks)))
		x.fields[f] = field
		x.order[f] = f
	}
	slices.SortFunc(x.order[:], func(a, b int) int { return len(x.fields[b].starts) - len(x.fields[a].starts) })
	x.makeSoles()
	x.makeHeaders()
	x.makeGroups()
	return x
}

func (x *httpIndex) makeSoles() {
	for f := range x.fields {
		field := &x.fields[f]
		field.soles = make([]sole, len(field.starts)-1)
		for p := range field.soles {
			field.soles[p][fieldHeader] = soleNone
			if ranks := field.rules(uint32(p)); len(ranks) == 1 {
				field.soles[p] = sole(x.uses[ranks[0]])
				field.soles[p][fieldHeader] = ranks[0]
				if len(x.rule(ranks[0]).headers) == 0 {
					field.soles[p][fieldHeader] |= solePlain
				}
			}
		}
	}
}

func (x *httpIndex) rule(rank uint32) *httpRule {
	if int(rank) < len(x.deny) {
		return &x.deny[rank]
	}
	return &x.allow[int(rank)-len(x.deny)]
}

func (h *httpRule) pattern(f int) *match.Pattern {
	switch f {
	case fieldMethod:
		return h.method
	case fieldPath:
		return h.path
	}
	return h.host
}

// httpMatches holds, by field, the patterns that match a request, ascending.
type httpMatches [httpFields][]uint32

// first returns the first deny rule and the first allow rule that match, nil without one.
// It does not allocate, some first times apart.
func (x *httpIndex) first(r *HTTPRequest) (deny, allow *httpRule) {
	if x.many.Load() {
		m, _ := x.pool.Get().(*httpMatches)
		if m == nil {
			m = new(httpMatches)
		}
		*m, deny, allow = x.find(*m, r)
		x.pool.Put(m)
		return deny, allow
	}
	const few = 8
	var buf [httpFields][few]uint32
	m, deny, allow := x.find(httpMatches{buf[0][:0], buf[1][:0], buf[2][:0]}, r)
	if cap(m[0]) > few || cap(m[1]) > few || cap(m[2]) > few {
		x.many.Store(true)
	}
	return deny, allow
}

// match lists the patterns of a field that match, in the room of list.
func (f *indexField) match(list []uint32, value []byte) []uint32 {
	list = list[:0]
	if f.starts[1] > 0 {
		list = append(list, 0)
	}
	if len(f.starts) > 2 {
		list = f.set.Append(list, value)
	}
	return list
}

// fewCandidates is how many rules are tried at once where one field leaves no more.
const fewCandidates = 4

// find is first in the room of m, which it returns.
func (x *httpIndex) find(m httpMatches, r *HTTPRequest) (_ httpMatches, deny, allow *httpRule) {
	s := search{x: x, r: r, deny: uint32(len(x.deny)), allow: uint32(len(x.uses))}
	known := [httpFields]bool{}
	done := false
	for _, f := range x.order {
		field := &x.fields[f]
		if !known[f] {
			m[f], known[f] = field.match(m[f], r.field(f)), true
		}
		candidates := 0
		for _, p := range m[f] {
			if field.soles[p][fieldHeader] != soleNone {
				candidates++
			} else {
				candidates += int(field.starts[p+1] - field.starts[p])
			}
		}
		if candidates > fewCandidates {
			continue
		}
		var few [fewCandidates]sole
		n := 0
		for _, p := range m[f] {
			if one := field.soles[p]; one[fieldHeader] != soleNone {
				few[n] = one
				n++
				continue
			}
			for _, rank := range field.rules(p) {
				few[n] = sole(x.uses[rank])
				few[n][fieldHeader] = rank
				n++
			}
		}
		for i := range few[:n] {
			matches := true
			for g := range m {
				if few[i][g] == 0 || g == f {
					continue
				}
				if !known[g] {
					m[g], known[g] = x.fields[g].match(m[g], r.field(g)), true
				}
				if matches = slices.Contains(m[g], few[i][g]); !matches {
					break
				}
			}
			if matches {
				s.consider(few[i][fieldHeader]&^solePlain, few[i][fieldHeader]&solePlain != 0)
			}
		}
		done = true
		break
	}
	if !done {
		s.combine(&m)
	}
	if s.deny < uint32(len(x.deny)) {
		deny = x.rule(s.deny)
	}
	if s.allow < uint32(len(x.uses)) {
		allow = x.rule(s.allow)
	}
	return m, deny, allow
}

func (r *HTTPRequest) field(f int) []byte {
	switch f {
	case fieldMethod:
		return r.Method
	case fieldPath:
		return r.Path
	}
	return r.Host
}

// combine looks for rules where no field leaves few. All of them have matches.
func (s *search) combine(m *httpMatches) {
	x := s.x
	var buf [maxHeaderNames + 1]uint32
	headers := x.headers.match(buf[:0], s.r)
	// Either every combination of patterns is tried, or every rule that has one of the
	// patterns of one field.
	combinations := len(m[fieldMethod]) * len(m[fieldPath]) * len(m[fieldHost]) * len(headers)
	fewest, of := combinations, -1
	if combinations > 8 {
		for f := range m {
			n := 0
			for _, p := range m[f] {
				n += len(x.fields[f].rules(p))
			}
			if n < fewest {
				fewest, of = n, f
			}
		}
	}
	if of >= 0 {
		for _, p := range m[of] {
			s.try(x.fields[of].rules(p), m)
		}
		return
	}
	for _, path := range m[fieldPath] {
		for _, method := range m[fieldMethod] {
			for _, host := range m[fieldHost] {
				for _, header := range headers {
					x.groups.try(s, groupKey{method, path, host, header})
				}
			}
		}
	}
}

// search keeps the lowest ranks found.
type search struct {
	x           *httpIndex
	r           *HTTPRequest
	deny, allow uint32
}

// lower takes a rule that matches.
func (s *search) lower(rank uint32) {
	if int(rank) < len(s.x.deny) {
		s.deny = min(s.deny, rank)
	} else {
		s.allow = min(s.allow, rank)
	}
}

// consider takes a rule whose patterns match, and that asks for no more if it is plain.
func (s *search) consider(rank uint32, plain bool) {
	if plain || s.x.rule(rank).matchesHeaders(s.r) {
		s.lower(rank)
	}
}

// try looks for lower ones among ascending ranks. m is nil where their patterns match.
func (s *search) try(ranks []uint32, m *httpMatches) {
	for i := 0; i < len(ranks); i++ {
		rank := ranks[i]
		if denies := uint32(len(s.x.deny)); rank >= denies && rank >= s.allow {
			return
		} else if rank < denies && rank >= s.deny {
			n, _ := slices.BinarySearch(ranks[i:], denies)
			i += n - 1
			continue
		}
		if m == nil || s.x.among(rank, m) {
			s.consider(rank, false)
		}
	}
}

// among reports whether the patterns of a rule are among m.
func (x *httpIndex) among(rank uint32, m *httpMatches) bool {
	for f := range m {
		if _, ok := slices.BinarySearch(m[f], x.uses[rank][f]); !ok {
			return false
		}
	}
	return true
}
