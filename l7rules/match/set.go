package match

import (
	"bytes"
	"regexp/syntax"
	"slices"
	"strings"
)

// Bounds of a Set. What is beyond them is matched one by one, as Pattern does.
const (
	maxFloating = 32       // patterns that may skip anything, among others
	maxSetSize  = 16 << 20 // bytes of all tables
	maxTables   = 16       // each is one more pass over a value
	maxSetWork  = 1 << 22  // threads looked at to make it: less than a second
)

// Set is many patterns that one pass over a value decides: fixed strings by a hash, the
// others by deterministic automata, of which there is one where that is not too large. It
// is immutable and safe for concurrent use. The zero Set holds no pattern.
type Set struct {
	patterns []*Pattern
	literals literals
	tables   []*table
	single   []uint32 // patterns that no table holds
	work     int      // left, and size
	size     int
}

// NewSet compiles patterns, which are then known by their index. A nil pattern matches
// nothing. It takes less than a second or so, whatever the patterns.
func NewSet(patterns []*Pattern) *Set {
	s := &Set{patterns: slices.Clone(patterns), work: maxSetWork, size: maxSetSize}
	literal := map[string][]uint32{}
	var others []uint32
	text := 0
	for i, p := range patterns {
		switch {
		case p == nil || p.kind == kindNone:
		case p.kind == kindLiterals && text < maxLiteralText:
			// Room for one more pattern of any size is left behind the bound.
			for _, l := range p.literals {
				literal[string(l)] = append(literal[string(l)], uint32(i))
				text += entryHead + len(l) + 3
			}
		default:
			others = append(others, uint32(i))
		}
	}
	s.literals = newLiterals(literal)
	slices.SortStableFunc(others, func(a, b uint32) int { return strings.Compare(patterns[a].source, patterns[b].source) })
	fixed, floating := s.split(others)
	if len(floating) > maxFloating && len(fixed) > maxFloating {
		s.addTables(fixed)
		s.addTables(floating)
	} else {
		s.addTables(others)
	}
	slices.Sort(s.single)
	return s
}

// addTables makes automata of patterns that are sorted: one, or more of parts.
func (s *Set) addTables(numbers []uint32) {
	if len(numbers) == 0 {
		return
	}
	if len(s.tables) >= maxTables || s.work <= 0 {
		s.single = append(s.single, numbers...)
		return
	}
	if t := s.newTable(numbers); t != nil {
		s.tables = append(s.tables, t)
		s.size -= t.size()
		return
	}
	if len(numbers) == 1 {
		s.single = append(s.single, numbers...)
		return
	}
	fixed, floating := s.split(numbers)
	if len(floating) == 0 || len(fixed) == 0 {
		half := len(numbers) / 2
		fixed, floating = numbers[:half], numbers[half:]
	}
	s.addTables(fixed)
	s.addTables(floating)
}

// split takes patterns apart: most are a trie at heart, and those in which anything may
// stand before something else multiply its states.
func (s *Set) split(numbers []uint32) (fixed, floating []uint32) {
	for _, i := range numbers {
		if tree := s.patterns[i].tree(); tree.Op == syntax.OpConcat && slices.ContainsFunc(tree.Sub[:len(tree.Sub)-1], skips) {
			floating = append(floating, i)
		} else {
			fixed = append(fixed, i)
		}
	}
	return fixed, floating
}

// skips reports whether a tree repeats a dot.
func skips(re *syntax.Regexp) bool {
	if (re.Op == syntax.OpStar || re.Op == syntax.OpPlus) && isAny(re.Sub[0]) {
		return true
	}
	return slices.ContainsFunc(re.Sub, skips)
}

// newTable makes one automaton of some patterns, nil if that takes too much.
func (s *Set) newTable(numbers []uint32) *table {
	n := newNFA(true)
	root := n.state()
	for _, i := range numbers {
		n.addPattern(root, s.patterns[i].tree(), int32(i))
		if n.full() {
			s.work -= len(n.states)
			return nil
		}
	}
	// Automata that are tries at heart have as many states as the nfa.
	size := len(n.states)
	limit := budget{states: 4*size + 1<<10, work: min(s.work, 64*size+1<<16), kept: 16*size + 1<<16}
	sub := newSubsets(n, limit)
	start := sub.start(root)
	var steps [][]byteStep
	err := sub.run(func(_ int32, st []byteStep) { steps = append(steps, st) })
	s.work -= size + limit.work - sub.budget.work
	if err != nil {
		return nil
	}
	return pack(sub, start, steps, s.size)
}

// Append adds to dst, ascending and without repetition, the numbers of the patterns that
// match the whole of value. It does not allocate where dst has room for twice as many.
func (s *Set) Append(dst []uint32, value []byte) []uint32 {
	from := len(dst)
	dst = s.literals.append(dst, value)
	if len(s.tables)+len(s.single) == 0 {
		return dst // its lists are ascending
	}
	for _, t := range s.tables {
		var early int
		if dst, early = t.run(dst, from, value); early >= 0 && bytes.IndexByte(value[early:], '\n') >= 0 {
			// A dot is no newline: what was reported early may not match.
			dst = append(dst[:from], slices.DeleteFunc(dst[from:], func(i uint32) bool { return !s.patterns[i].Match(value) })...)
		}
	}
	for _, n := range s.single {
		if s.patterns[n].Match(value) {
			dst = addOne(dst, from, n)
		}
	}
	if len(dst) > from+1 {
		dst = compact(dst, from)
	}
	return dst
}

// add appends numbers to list, of which those from from on are ours.
func add(list []uint32, from int, numbers []uint32) []uint32 {
	for _, n := range numbers {
		list = addOne(list, from, n)
	}
	return list
}

// addOne appends a number, also one that is there already: a state that reports patterns
// may be entered at every byte.
func addOne(list []uint32, from int, n uint32) []uint32 {
	if k := len(list); k > from && list[k-1] == n {
		return list
	}
	if len(list) == cap(list) && len(list) > from {
		list = compact(list, from)
		if 2*(len(list)-from) > cap(list)-from {
			list = slices.Grow(list, cap(list))
		}
	}
	return append(list, n)
}

// compact sorts list[from:] and removes repetitions.
func compact(list []uint32, from int) []uint32 {
	slices.Sort(list[from:])
	return list[:from+len(slices.Compact(list[from:]))]
}
