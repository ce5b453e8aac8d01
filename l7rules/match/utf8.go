package match

import (
	"slices"
	"unicode/utf8"
)

// step returns where bytes lead from a state.
func (s *subsets) step(k stateKey) []byteStep {
	if k.part.n == 0 {
		return s.byteSteps(k.set)
	}
	// Either the rune goes on, or each byte of it was U+FFFD by itself.
	broken, emit := s.broken(k.set, k.part.n)
	var out []byteStep
	for _, st := range s.byteSteps(broken) {
		out = append(out, byteStep{st.lo, st.hi, s.emitting(st.to, emit)})
	}
	if emit != 0 {
		out = fill(out, s.intern(stateKey{emit: emit}))
	}
	out = cut(out, k.part.lo, k.part.hi)
	if k.part.to >= 0 {
		to := k.part.to
		if k.part.rem > 1 {
			to = s.intern(stateKey{set: k.set, part: partial{n: k.part.n + 1, rem: k.part.rem - 1, lo: 0x80, hi: 0xBF, to: to}})
		}
		out = append(out, byteStep{k.part.lo, k.part.hi, to})
	} else {
		for b := int(k.part.lo); b <= int(k.part.hi); b++ {
			prefix := k.part.prefix<<6 | rune(b&0x3F)
			var to int32
			if k.part.rem == 1 {
				to = s.intern(stateKeyOf(by(s.runeSteps(k.set), prefix)))
			} else {
				to = s.partly(k.set, k.part.n+1, k.part.rem-1, 0x80, 0xBF, prefix)
			}
			out = append(out, byteStep{byte(b), byte(b), to})
		}
	}
	slices.SortFunc(out, func(a, b byteStep) int { return int(a.lo) - int(b.lo) })
	return merge(out)
}

// byteSteps returns where bytes lead from a set at the beginning of a rune.
func (s *subsets) byteSteps(id int32) []byteStep {
	if s.sets[id].byted {
		return s.sets[id].bytes
	}
	steps := s.runeSteps(id)
	var out []byteStep
	for _, st := range steps {
		if st.lo < utf8.RuneSelf {
			out = append(out, byteStep{byte(st.lo), byte(min(st.hi, utf8.RuneSelf-1)), s.intern(stateKeyOf(st.to))})
		}
	}
	out = s.highSteps(out, id, steps)
	out = merge(out)
	s.sets[id].bytes, s.sets[id].byted = out, true
	return out
}

// highSteps appends the steps by bytes that are not ASCII.
func (s *subsets) highSteps(out []byteStep, id int32, steps []runeStep) []byteStep {
	if to, ok := uniform(steps, utf8.RuneSelf, maxRune); ok {
		// Often it does not matter how many runes these bytes are: one leads where any
		// number of them does.
		if to == (target{}) {
			return out
		}
		again, ok := uniform(s.runeSteps(to.set), utf8.RuneSelf, maxRune)
		if ok && again.set == to.set && s.subset(again.emit, to.emit) {
			return append(out, byteStep{0x80, 0xFF, s.intern(stateKeyOf(to))})
		}
	}
	invalid := s.intern(stateKeyOf(by(steps, utf8.RuneError)))
	out = append(out, byteStep{0x80, 0xC1, invalid})
	for _, lead := range leads {
		for b := int(lead.first); b <= int(lead.last); b++ {
			prefix := rune(b & (0x3F >> lead.rem))
			out = append(out, byteStep{byte(b), byte(b), s.partly(id, 1, lead.rem, lead.lo, lead.hi, prefix)})
		}
	}
	return append(out, byteStep{0xF5, 0xFF, invalid})
}

// leads is table 3-7 of the Unicode standard: which bytes begin a rune, how many follow,
// and what the next one may be.
var leads = []struct{ first, last, rem, lo, hi byte }{
	{0xC2, 0xDF, 1, 0x80, 0xBF},
	{0xE0, 0xE0, 2, 0xA0, 0xBF}, {0xE1, 0xEC, 2, 0x80, 0xBF}, {0xED, 0xED, 2, 0x80, 0x9F}, {0xEE, 0xEF, 2, 0x80, 0xBF},
	{0xF0, 0xF0, 3, 0x90, 0xBF}, {0xF1, 0xF3, 3, 0x80, 0xBF}, {0xF4, 0xF4, 3, 0x80, 0x8F},
}

// partly returns the state within a rune.
func (s *subsets) partly(set int32, n, rem uint8, lo, hi byte, prefix rune) int32 {
	steps := s.runeSteps(set)
	s.budget.work -= 1 + len(steps)/8
	shift := 6 * int(rem)
	first := prefix<<shift | rune(lo&0x3F)<<(shift-6)
	last := prefix<<shift | rune(hi&0x3F)<<(shift-6) | (1<<(shift-6) - 1)
	p := partial{n: n, rem: rem, lo: lo, hi: hi, prefix: prefix, to: -1}
	if t, ok := uniform(steps, first, last); ok {
		if t == (target{}) && by(steps, utf8.RuneError) == (target{}) {
			return 0
		}
		p.prefix, p.to = 0, s.intern(stateKeyOf(t))
	}
	return s.intern(stateKey{set: set, part: p})
}

// broken is the set behind n bytes that are no rune, and what was met on the way.
func (s *subsets) broken(set int32, n uint8) (to, emit int32) {
	for range n {
		t := by(s.runeSteps(set), utf8.RuneError)
		set, emit = t.set, s.union(emit, t.emit)
	}
	return set, emit
}

// emitting is a state that is entered with more patterns that match whatever follows.
func (s *subsets) emitting(state, emit int32) int32 {
	k := s.states[state].stateKey
	k.emit = s.union(k.emit, emit)
	return s.intern(k)
}

// endOf lists the patterns that match a value that ends in a state, without those it
// reports when it is entered.
func (s *subsets) endOf(k stateKey) int32 {
	set, emit := s.broken(k.set, k.part.n)
	return s.union(s.sets[set].end, emit)
}

// cut removes the bytes from lo to hi.
func cut(steps []byteStep, lo, hi byte) []byteStep {
	var out []byteStep
	for _, st := range steps {
		if st.lo < lo {
			out = append(out, byteStep{st.lo, min(st.hi, lo-1), st.to})
		}
		if st.hi > hi {
			out = append(out, byteStep{max(st.lo, hi+1), st.hi, st.to})
		}
	}
	return out
}

// fill makes what leads nowhere lead to a state.
func fill(steps []byteStep, to int32) []byteStep {
	var out []byteStep
	next := 0
	for _, st := range steps {
		if int(st.lo) > next {
			out = append(out, byteStep{byte(next), st.lo - 1, to})
		}
		out = append(out, st)
		next = int(st.hi) + 1
	}
	if next <= 0xFF {
		out = append(out, byteStep{byte(next), 0xFF, to})
	}
	return out
}

// merge joins neighbours and drops what leads nowhere.
func merge(steps []byteStep) []byteStep {
	out := steps[:0]
	for _, st := range steps {
		if st.to == 0 {
			continue
		}
		if n := len(out); n > 0 && out[n-1].to == st.to && int(out[n-1].hi)+1 == int(st.lo) {
			out[n-1].hi = st.hi
			continue
		}
		out = append(out, st)
	}
	return out
}
