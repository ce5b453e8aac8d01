package match

import (
	"encoding/binary"
	"errors"
	"regexp/syntax"
	"slices"
)

// errBudget is why an automaton was not built.
var errBudget = errors.New("the automaton is too large")

// budget bounds an automaton under construction.
type budget struct {
	states int // of the automaton
	work   int // threads looked at
	kept   int // threads of all states together: 8 bytes each
}

func (b *budget) spent() bool { return b.work < 0 || b.kept < 0 }

// subsets makes one deterministic automaton over bytes of an nfa (the subset construction).
//
// A state is a set of threads at the beginning of a rune, and what was read of that rune.
// A byte that is no UTF-8 is U+FFFD, as regexp reads it: bytes that begin a rune which
// another byte then breaks off become one U+FFFD each.
type subsets struct {
	n      *nfa
	budget budget
	// Where keep is not empty, sets without one of these states of n are dead.
	keep [2]int32

	sets   []threadSet
	setIDs map[string]int32
	lists  [][]uint32 // lists of patterns, sorted; 0 is empty
	listID map[string]int32

	states  []dfaState // 0 is dead
	stateID map[stateKey]int32

	mark  []uint32 // by state of n: the last round that saw it
	round uint32
	stack []int32
	buf   []byte
}

// threadSet is a set of states of the nfa that consume or that end.
type threadSet struct {
	threads []int32
	prev    uint8 // where a thread looks back: what was before, a kind
	conds   bool  // a thread looks around
	end     int32 // list of the patterns that match if the value ends here
	steps   []runeStep
	bytes   []byteStep
	stepped bool
	byted   bool
}

// runeStep leads from a set to another one by any rune of a range.
type runeStep struct {
	lo, hi rune
	to     target
}

// target is a set and the patterns that match, whatever follows, once it is reached.
type target struct{ set, emit int32 }

// byteStep leads from a state to another one by any byte of a range.
type byteStep struct {
	lo, hi byte
	to     int32
}

type dfaState struct {
	stateKey
	end int32
}

type stateKey struct {
	set  int32
	emit int32
	part partial
}

// partial is what was read of a rune: nothing if n is 0.
type partial struct {
	n, rem uint8 // bytes read, bytes to come
	lo, hi byte  // the next one, or it is no rune
	prefix rune  // bits so far, where to is -1
	to     int32 // the state behind the rune, where all that are left lead to one
}

// Kinds of runes that a thread which looks around tells apart.
const (
	kindEdge    uint8 = iota // begin or end of the value
	kindNewline              // \n
	kindWord                 // what \w matches
	kindOther
)

var kindRanges = [...][]rune{
	kindNewline: {'\n', '\n'},
	kindWord:    {'0', '9', 'A', 'Z', '_', '_', 'a', 'z'},
	kindOther:   {0, '\n' - 1, '\n' + 1, '0' - 1, '9' + 1, 'A' - 1, 'Z' + 1, '_' - 1, '_' + 1, 'a' - 1, 'z' + 1, maxRune},
}

func newSubsets(n *nfa, b budget) *subsets {
	s := &subsets{
		n: n, budget: b,
		setIDs: map[string]int32{}, listID: map[string]int32{"": 0}, lists: make([][]uint32, 1),
		stateID: map[stateKey]int32{}, mark: make([]uint32, len(n.states)),
	}
	s.sets = append(s.sets, threadSet{stepped: true, byted: true})
	s.setIDs[string(s.setKey(nil, 0))] = 0
	s.states = append(s.states, dfaState{})
	s.stateID[stateKey{}] = 0
	return s
}

// start is the state at the beginning of a value whose threads begin at roots.
func (s *subsets) start(roots ...int32) int32 {
	return s.intern(stateKeyOf(s.enter(roots, kindEdge)))
}

func stateKeyOf(t target) stateKey { return stateKey{set: t.set, emit: t.emit} }

// run makes all states, and calls visit for each with its steps, until the budget is spent.
func (s *subsets) run(visit func(state int32, steps []byteStep)) error {
	if s.n.full() || s.budget.spent() {
		return errBudget
	}
	for id := int32(0); int(id) < len(s.states); id++ {
		st := s.states[id].stateKey
		steps := s.step(st)
		s.states[id].end = s.endOf(st)
		// Looked at last: what was spent in the midst of a step has left that one unfinished.
		if len(s.states) > s.budget.states || s.budget.spent() {
			return errBudget
		}
		visit(id, steps)
	}
	return nil
}

func (s *subsets) intern(k stateKey) int32 {
	if k.set == 0 && k.part.n == 0 {
		k.part = partial{}
	}
	id, ok := s.stateID[k]
	if !ok {
		id = int32(len(s.states))
		s.states = append(s.states, dfaState{stateKey: k})
		s.stateID[k] = id
	}
	return id
}

// enter follows what consumes nothing from some states. prev is the kind of what was read
// before.
func (s *subsets) enter(from []int32, prev uint8) target {
	threads := s.closure(from, 0)
	var emit []uint32
	kept := s.keep[0] == s.keep[1]
	conds := false
	w := 0
	for _, id := range threads {
		st := &s.n.states[id]
		emit = s.collect(emit, st.emit)
		if st.cond != 0 {
			conds = true
		} else if st.edge == 0 && st.end == 0 {
			continue
		}
		kept = kept || s.keep[0] <= id && id < s.keep[1]
		threads[w] = id
		w++
	}
	threads = threads[:w]
	if !kept {
		return target{}
	}
	if !conds {
		prev = 0
	}
	key := s.setKey(threads, prev)
	id, ok := s.setIDs[string(key)]
	if !ok {
		id = int32(len(s.sets))
		s.setIDs[string(key)] = id
		s.budget.kept -= len(threads)
		set := threadSet{threads: slices.Clone(threads), prev: prev, conds: conds}
		ends := threads
		if conds {
			ends = s.closure(threads, around(prev, kindEdge))
		}
		var end []uint32
		for _, t := range ends {
			end = s.collect(end, s.n.states[t].end)
		}
		set.end = s.list(end)
		s.sets = append(s.sets, set)
	}
	return target{id, s.list(emit)}
}

func (s *subsets) setKey(threads []int32, prev uint8) []byte {
	s.buf = append(s.buf[:0], prev)
	for _, t := range threads {
		s.buf = binary.LittleEndian.AppendUint32(s.buf, uint32(t))
	}
	return s.buf
}

func (s *subsets) collect(dst []uint32, list int32) []uint32 {
	for ; list != 0; list = s.n.outs[list].next {
		dst = append(dst, uint32(s.n.outs[list].pattern))
	}
	return dst
}

// list interns a list of patterns.
func (s *subsets) list(patterns []uint32) int32 {
	if len(patterns) == 0 {
		return 0
	}
	slices.Sort(patterns)
	patterns = slices.Compact(patterns)
	s.buf = s.buf[:0]
	for _, p := range patterns {
		s.buf = binary.LittleEndian.AppendUint32(s.buf, p)
	}
	id, ok := s.listID[string(s.buf)]
	if !ok {
		s.budget.kept -= len(patterns)
		id = int32(len(s.lists))
		s.lists = append(s.lists, slices.Clone(patterns))
		s.listID[string(s.buf)] = id
	}
	return id
}

func (s *subsets) union(a, b int32) int32 {
	switch {
	case a == b || b == 0:
		return a
	case a == 0:
		return b
	}
	return s.list(append(slices.Clone(s.lists[a]), s.lists[b]...))
}

func (s *subsets) subset(a, b int32) bool { return s.union(a, b) == b }

// closure returns, sorted, the states that can be reached from some by links, those with
// a condition only if it is among flags. The result is valid until the next call.
func (s *subsets) closure(from []int32, flags syntax.EmptyOp) []int32 {
	s.round++
	s.stack = s.stack[:0]
	for _, id := range from {
		if s.mark[id] != s.round {
			s.mark[id] = s.round
			s.stack = append(s.stack, id)
		}
	}
	for i := 0; i < len(s.stack); i++ {
		st := &s.n.states[s.stack[i]]
		if st.cond&^flags != 0 {
			continue
		}
		for l := st.link; l != 0; l = s.n.links[l].next {
			if to := s.n.links[l].to; s.mark[to] != s.round {
				s.mark[to] = s.round
				s.stack = append(s.stack, to)
			}
		}
	}
	s.budget.work -= len(s.stack)
	slices.Sort(s.stack)
	return s.stack
}

// around is what holds between two kinds of runes.
func around(before, after uint8) syntax.EmptyOp {
	sample := [...]rune{kindEdge: -1, kindNewline: '\n', kindWord: 'a', kindOther: '-'}
	return syntax.EmptyOpContext(sample[before], sample[after])
}

// runeSteps returns where runes lead from a set, ascending; to nothing where none is listed.
func (s *subsets) runeSteps(id int32) []runeStep {
	if s.sets[id].stepped {
		return s.sets[id].steps
	}
	set := s.sets[id]
	var steps []runeStep
	if !s.n.conds {
		steps = s.sweep(nil, s.edgesOf(set.threads), 0, maxRune, kindOther)
	} else {
		for _, kind := range []uint8{kindNewline, kindWord, kindOther} {
			threads := set.threads
			if set.conds {
				threads = slices.Clone(s.closure(threads, around(set.prev, kind)))
			}
			edges := s.edgesOf(threads)
			for r := kindRanges[kind]; len(r) > 0; r = r[2:] {
				steps = s.sweep(steps, edges, r[0], r[1], kind)
			}
		}
		slices.SortFunc(steps, func(a, b runeStep) int { return int(a.lo) - int(b.lo) })
	}
	s.sets[id].steps, s.sets[id].stepped = steps, true
	return steps
}

func (s *subsets) edgesOf(threads []int32) []nfaEdge {
	var edges []nfaEdge
	for _, t := range threads {
		for e := s.n.states[t].edge; e != 0; e = s.n.edges[e].next {
			edges = append(edges, s.n.edges[e])
		}
	}
	s.budget.work -= len(edges)
	slices.SortFunc(edges, func(a, b nfaEdge) int { return int(a.lo) - int(b.lo) })
	return edges
}

// sweep appends the steps by runes of one kind from lo to hi. edges are sorted.
func (s *subsets) sweep(steps []runeStep, edges []nfaEdge, lo, hi rune, kind uint8) []runeStep {
	bounds := make([]rune, 0, 2*len(edges)+1)
	for _, e := range edges {
		if e.lo <= hi && e.hi >= lo {
			bounds = append(bounds, max(e.lo, lo), min(e.hi, hi)+1)
		}
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	var active []nfaEdge
	var to []int32
	for i := 0; i+1 < len(bounds) && !s.budget.spent(); i++ {
		first, last := bounds[i], bounds[i+1]-1
		active = slices.DeleteFunc(active, func(e nfaEdge) bool { return e.hi < first })
		for len(edges) > 0 && edges[0].lo <= first {
			if edges[0].hi >= first {
				active = append(active, edges[0])
			}
			edges = edges[1:]
		}
		to = to[:0]
		for _, e := range active {
			to = append(to, e.to)
		}
		if len(to) == 0 {
			continue
		}
		t := s.enter(to, kind)
		if t == (target{}) {
			continue
		}
		if n := len(steps); n > 0 && steps[n-1].to == t && steps[n-1].hi == first-1 {
			steps[n-1].hi = last
			continue
		}
		steps = append(steps, runeStep{first, last, t})
	}
	return steps
}

// by returns where one rune leads.
func by(steps []runeStep, r rune) target {
	for _, st := range steps {
		if st.lo <= r && r <= st.hi {
			return st.to
		}
	}
	return target{}
}

// uniform returns where all runes from lo to hi lead, if that is one target.
func uniform(steps []runeStep, lo, hi rune) (target, bool) {
	var to target
	first, next := true, lo
	for _, st := range steps {
		if st.hi < lo || st.lo > hi {
			continue
		}
		if first {
			to, first = st.to, false
		}
		if st.lo > next || st.to != to {
			return target{}, false
		}
		next = st.hi + 1
	}
	return to, first || next > hi
}
