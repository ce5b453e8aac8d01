package prove

import (
	"encoding/binary"
	"fmt"
	"regexp/syntax"
	"slices"
)

// Bounds of one joint automaton. Within them it takes well under a second.
const (
	maxStates = 1 << 14
	maxWork   = 10_000_000 // instructions looked at
	maxWords  = 1 << 13    // classes

	blamedStates = 1 << 10 // of one pattern by itself: then it is to blame

	maxBudget = 300_000_000 // instructions that all automata of one answer look at
)

// word stands for all values of a domain that exactly these patterns match.
type word struct {
	patterns set
	value    string // a shortest one
}

// tooLarge says which pattern makes the automaton large.
type tooLarge struct {
	pattern int
	reason  string
}

func (e *tooLarge) Error() string { return e.reason }

// words finds every set of patterns that some value of the domain matches at once, the
// empty set included, with a shortest value each. Patterns are RE2 expressions, matched
// whole, as package match takes them.
//
// budget is how many instructions may be looked at, and is made smaller by what it takes.
func words(d *domain, patterns []string, budget *int) ([]word, error) {
	m := newJoint(d, patterns)
	if m == nil {
		return nil, fmt.Errorf("read patterns: one is no regular expression")
	}
	m.maxWork = min(m.maxWork, *budget)
	err := m.run()
	*budget -= min(m.work, *budget)
	var e *tooLarge
	switch {
	case err == nil:
		return m.found, nil
	case !isTooLarge(err, &e) || len(patterns) < 2:
		return nil, err
	case *budget == 0:
		e.reason = "everything together takes too many steps"
	}
	// Which is to blame: the one that is largest by itself.
	worst, most := 0, -1
	for i, p := range patterns {
		j := newJoint(d, []string{p})
		j.maxStates, j.maxWork = blamedStates, maxWork/10
		if j.run() != nil {
			worst = i
			break
		}
		if j.work > most {
			worst, most = i, j.work
		}
	}
	e.pattern = worst
	return nil, e
}

func isTooLarge(err error, e **tooLarge) bool {
	t, ok := err.(*tooLarge)
	*e = t
	return ok
}

// machine is the subset construction over a domain and any number of patterns at once.
type machine struct {
	domain *domain
	insts  []syntax.Inst // of all patterns; Out and Arg count from the first
	owner  []int         // pattern of an instruction
	first  []uint32      // where the patterns begin
	looks  bool          // some pattern looks around positions
	n      int           // patterns
	heads  []byte        // one byte of each class that nothing tells apart
	states []state
	ids    map[string]int
	found  []word
	words  map[string]bool
	work   int

	maxStates int
	maxWork   int
	visited   []uint32 // by instruction: the last closure that saw it
	closure   uint32
}

// state is a set of instructions, before what consumes nothing was followed.
type state struct {
	domain uint16
	before rune // what a position sees before it: -1, 'a' or '/'
	pcs    []uint32
	parent int
	via    byte
}

// newJoint returns nil where a pattern cannot be read.
func newJoint(d *domain, patterns []string) *machine {
	m := &machine{domain: d, n: len(patterns), maxStates: maxStates, maxWork: maxWork, ids: map[string]int{}, words: map[string]bool{}}
	for i, p := range patterns {
		tree, err := syntax.Parse(p, syntax.Perl)
		if err != nil {
			return nil
		}
		prog, err := syntax.Compile(tree.Simplify())
		if err != nil {
			return nil
		}
		base := uint32(len(m.insts))
		m.first = append(m.first, base+uint32(prog.Start))
		for _, in := range prog.Inst {
			m.looks = m.looks || in.Op == syntax.InstEmptyWidth
			in.Out += base
			if in.Op == syntax.InstAlt || in.Op == syntax.InstAltMatch {
				in.Arg += base
			}
			m.insts = append(m.insts, in)
			m.owner = append(m.owner, i)
		}
	}
	m.visited = make([]uint32, len(m.insts))
	m.classify()
	return m
}

// classify picks one byte of each class. Bytes of one class lead from every state of the
// domain to the same one and are consumed by the same instructions.
func (m *machine) classify() {
	seen := map[string]bool{}
	var row []byte
	for i := range len(m.domain.order) {
		c := m.domain.order[i]
		row = row[:0]
		alive := false
		for s := range m.domain.next {
			to := m.domain.next[s][c]
			alive = alive || to != 0
			row = binary.AppendUvarint(row, uint64(to))
		}
		if !alive {
			continue
		}
		for pc := range m.insts {
			if consumes(&m.insts[pc], c) {
				row = binary.AppendUvarint(row, uint64(pc))
			}
		}
		if m.looks && syntax.IsWordChar(rune(c)) {
			row = append(row, 'w')
		}
		if !seen[string(row)] {
			seen[string(row)] = true
			m.heads = append(m.heads, c)
		}
	}
}

func consumes(in *syntax.Inst, c byte) bool {
	switch in.Op {
	case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return in.MatchRune(rune(c))
	}
	return false
}

// run goes through all states, nearest to the start first, so that the first value found
// for a class is a shortest.
func (m *machine) run() error {
	start := slices.Clone(m.first)
	slices.Sort(start)
	m.add(state{domain: 1, before: -1, pcs: start, parent: -1})
	for i := 0; i < len(m.states); i++ {
		if err := m.expand(i); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) expand(i int) error {
	s := m.states[i]
	if m.domain.accept[s.domain] {
		matched := newSet(max(m.n, 1))
		for _, pc := range m.follow(s, -1) {
			if m.insts[pc].Op == syntax.InstMatch {
				matched.add(m.owner[pc])
			}
		}
		if key := matched.key(); !m.words[key] {
			if m.words[key] = true; len(m.words) > maxWords {
				return &tooLarge{reason: fmt.Sprintf("the patterns fall into more than %d classes", maxWords)}
			}
			m.found = append(m.found, word{matched, m.value(i)})
		}
	}
	// What is followed depends on the next byte only where a pattern looks at it.
	var closed [2][]uint32
	var have [2]bool
	var to []uint32
	for _, c := range m.heads {
		d := m.domain.next[s.domain][c]
		if d == 0 {
			continue
		}
		kind := 0
		if m.looks && syntax.IsWordChar(rune(c)) {
			kind = 1
		}
		if !have[kind] {
			closed[kind], have[kind] = m.follow(s, rune(c)), true
		}
		to = to[:0]
		for _, pc := range closed[kind] {
			if in := &m.insts[pc]; consumes(in, c) {
				to = append(to, in.Out)
			}
		}
		if m.work += len(closed[kind]) + 1; m.work > m.maxWork {
			return &tooLarge{reason: fmt.Sprintf("the automaton takes more than %d steps", m.maxWork)}
		}
		before := rune('/')
		if m.looks && syntax.IsWordChar(rune(c)) {
			before = 'a'
		}
		slices.Sort(to)
		to = slices.Compact(to)
		if !m.add(state{domain: d, before: before, pcs: to, parent: i, via: c}) {
			return &tooLarge{reason: fmt.Sprintf("the automaton has more than %d states", maxStates)}
		}
	}
	return nil
}

// add takes in a state unless it is known. pcs are copied.
func (m *machine) add(s state) bool {
	key := make([]byte, 0, 3+len(s.pcs)*3)
	key = append(key, byte(s.domain), byte(s.domain>>8), byte(s.before))
	for _, pc := range s.pcs {
		key = binary.AppendUvarint(key, uint64(pc))
	}
	if _, known := m.ids[string(key)]; known {
		return true
	}
	if len(m.states) == m.maxStates {
		return false
	}
	m.ids[string(key)] = len(m.states)
	s.pcs = slices.Clone(s.pcs)
	m.states = append(m.states, s)
	return true
}

// follow returns the instructions that consume or match, given the byte that comes, or -1
// at the end.
func (m *machine) follow(s state, next rune) []uint32 {
	if m.closure++; m.closure == 0 {
		clear(m.visited)
		m.closure = 1
	}
	flags := syntax.EmptyOpContext(s.before, next)
	var list []uint32
	stack := slices.Clone(s.pcs)
	for len(stack) > 0 {
		pc := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if m.visited[pc] == m.closure {
			continue
		}
		m.visited[pc] = m.closure
		m.work++
		switch in := &m.insts[pc]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			stack = append(stack, in.Out, in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			stack = append(stack, in.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^flags == 0 {
				stack = append(stack, in.Out)
			}
		case syntax.InstFail:
		default:
			list = append(list, pc)
		}
	}
	return list
}

// value is what leads to a state.
func (m *machine) value(i int) string {
	var b []byte
	for ; m.states[i].parent >= 0; i = m.states[i].parent {
		b = append(b, m.states[i].via)
	}
	slices.Reverse(b)
	return string(b)
}
