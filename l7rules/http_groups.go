package l7rules

import (
	"math/bits"
	"slices"
)

// groupKey is what the rules of a group have in common: the numbers of the patterns of
// their fields, and that of the header they ask for.
type groupKey [httpFields + 1]uint32

const fieldHeader = httpFields

// groups holds the ranks of the rules of a group, by its key. For the sake of nearest it
// has more: with anyOther as header, those with any, if some ask for one; with anyOther as
// host, the lowest rank of an allow rule with a method and path. It is an open hash table, a
// power of two of slots, some of them empty.
type groups struct {
	slots []group
	ranks []uint32
}

// group is one rule: its rank, used, and plain if it asks for nothing else. Or it is more
// of them: ranks[at] is how many, they follow, and at is used and several.
type group struct {
	key groupKey
	at  uint32
}

const (
	groupUsed    = 1 << 31
	groupPlain   = 1 << 30
	groupSeveral = 1 << 29
	groupAt      = groupSeveral - 1
)

// anyOther is the number of no pattern.
const anyOther = 1<<32 - 1

func (x *httpIndex) makeGroups() {
	byKey := map[groupKey][]uint32{}
	for rank, key := range x.uses {
		byKey[key] = append(byKey[key], uint32(rank))
		if len(x.headers.names) > 0 {
			key[fieldHeader] = anyOther
			byKey[key] = append(byKey[key], uint32(rank))
		}
		key[fieldHost], key[fieldHeader] = anyOther, 0
		if rank >= len(x.deny) && byKey[key] == nil {
			byKey[key] = []uint32{uint32(rank)}
		}
	}
	g := &x.groups
	g.slots = make([]group, 1<<bits.Len(uint(len(byKey)+len(byKey)/4)))
	for key, ranks := range byKey {
		s := g.slot(key)
		s.key, s.at = key, groupUsed|ranks[0]
		switch {
		case len(ranks) > 1:
			s.at = groupUsed | groupSeveral | uint32(len(g.ranks))
			g.ranks = append(append(g.ranks, uint32(len(ranks))), ranks...)
		case len(x.rule(ranks[0]).headers) == 0:
			s.at |= groupPlain
		}
	}
}

// slot returns that of a key, or the one where it would be.
func (g *groups) slot(key groupKey) *group {
	const factor = 0x9E3779B97F4A7C15
	h := (uint64(key[0])<<32 | uint64(key[1])) * factor
	h = (h ^ h>>32 ^ (uint64(key[2])<<32 | uint64(key[3]))) * factor
	for at := h >> 32; ; at++ {
		s := &g.slots[at&uint64(len(g.slots)-1)]
		if s.at == 0 || s.key == key {
			return s
		}
	}
}

// try looks for lower ranks among the rules with some patterns.
func (g *groups) try(s *search, key groupKey) {
	switch at := g.slot(key).at; {
	case at == 0:
	case at&groupSeveral != 0:
		list := g.ranks[at&groupAt:]
		s.try(list[1:1+list[0]], nil)
	default:
		s.consider(at&groupAt, at&groupPlain != 0)
	}
}

// maxNearest bounds the combinations of patterns that nearest looks at.
const maxNearest = 256

// nearest is that of Ruleset; ok is false where the rules have to be tried one by one.
func (x *httpIndex) nearest(r *HTTPRequest) (rule *httpRule, matched int, ok bool) {
	if len(x.allow) == 0 {
		return nil, 0, true
	}
	var m httpMatches
	for f := range m {
		m[f] = x.fields[f].match(nil, r.field(f))
	}
	if len(m[fieldMethod])*len(m[fieldPath])*(1+len(m[fieldHost])) > maxNearest {
		return nil, 0, false
	}
	header := uint32(0)
	if len(x.headers.names) > 0 {
		header = anyOther
	}
	best, matched := uint32(len(x.deny)), 0
	better := func(rank uint32, n int) {
		if int(rank) >= len(x.deny) && (n > matched || n == matched && rank < best) {
			best, matched = rank, n
		}
	}
	for _, method := range m[fieldMethod] {
		ranks := x.fields[fieldMethod].rules(method)
		if i, _ := slices.BinarySearch(ranks, uint32(len(x.deny))); i < len(ranks) {
			better(ranks[i], 1)
		}
		for _, path := range m[fieldPath] {
			for _, rank := range x.groups.list(groupKey{method, path, anyOther}) {
				better(rank, 2)
			}
			for _, host := range m[fieldHost] {
				for _, rank := range x.groups.list(groupKey{method, path, host, header}) {
					better(rank, x.rule(rank).matched(r))
				}
			}
		}
	}
	return x.rule(best), matched, true
}

func (g *groups) list(key groupKey) []uint32 {
	switch at := g.slot(key).at; {
	case at == 0:
		return nil
	case at&groupSeveral != 0:
		list := g.ranks[at&groupAt:]
		return list[1 : 1+list[0]]
	default:
		return []uint32{at & groupAt}
	}
}
