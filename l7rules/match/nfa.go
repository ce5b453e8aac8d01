package match

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"
	"unicode"
)

// nfa is one nondeterministic automaton over runes for many patterns. Patterns share the
// states of what they begin with, as in a trie, so that thousands of paths with a common
// head are not thousands of threads. States, edges and lists are flat arrays linked by
// index; 0 ends a list.
type nfa struct {
	states []nfaState
	edges  []nfaEdge
	links  []nfaLink
	outs   []nfaOut

	firsts   []int32 // first state of each pattern that was added, ascending
	patterns []int32 // their numbers

	shared map[shareKey]int32
	conds  bool // some state looks around a position
	emits  bool // what ends in .* is reported as soon as it is reached, see emit
}

type nfaState struct {
	edge int32          // first of those that consume a rune
	link int32          // first of those that consume nothing
	end  int32          // first pattern that matches if the value ends here
	emit int32          // first pattern that matches whatever follows
	cond syntax.EmptyOp // what links need to hold around the position
}

type nfaEdge struct {
	lo, hi rune
	to     int32
	next   int32
}

type nfaLink struct{ to, next int32 }

type nfaOut struct{ pattern, next int32 }

type shareKey struct {
	from   int32
	lo, hi rune
	text   string
}

const (
	maxRune = unicode.MaxRune
	// maxNFA bounds the states of one nfa, and maxEdges its edges: 16 bytes each.
	maxNFA   = 1 << 20
	maxEdges = 1 << 21
)

// full reports whether an nfa is too large, and then not whole.
func (n *nfa) full() bool { return len(n.states) > maxNFA || len(n.edges) > maxEdges }

func newNFA(emits bool) *nfa {
	return &nfa{
		states: make([]nfaState, 1), edges: make([]nfaEdge, 1), links: make([]nfaLink, 1), outs: make([]nfaOut, 1),
		shared: map[shareKey]int32{}, emits: emits,
	}
}

func (n *nfa) state() int32 {
	n.states = append(n.states, nfaState{})
	return int32(len(n.states) - 1)
}

func (n *nfa) consume(from int32, lo, hi rune, to int32) {
	n.edges = append(n.edges, nfaEdge{lo, hi, to, n.states[from].edge})
	n.states[from].edge = int32(len(n.edges) - 1)
}

func (n *nfa) link(from, to int32) {
	n.links = append(n.links, nfaLink{to, n.states[from].link})
	n.states[from].link = int32(len(n.links) - 1)
}

func (n *nfa) out(list *int32, pattern int32) {
	for at := *list; at != 0; at = n.outs[at].next {
		if n.outs[at].pattern == pattern {
			return
		}
	}
	n.outs = append(n.outs, nfaOut{pattern, *list})
	*list = int32(len(n.outs) - 1)
}

// addPattern makes values that begin at root match a pattern. Those that were added
// before are looked at first where states are shared.
func (n *nfa) addPattern(root int32, tree *syntax.Regexp, pattern int32) {
	n.firsts = append(n.firsts, int32(len(n.states)))
	n.patterns = append(n.patterns, pattern)
	emits := n.emits
	// What is behind a condition is not reached until the next rune is known.
	n.emits = emits && !looksAround(tree)
	n.add(root, root, []*syntax.Regexp{tree}, pattern)
	n.emits = emits
}

func looksAround(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return true
	}
	return slices.ContainsFunc(re.Sub, looksAround)
}

// add makes the pattern match what a sequence of trees, read from state at on, matches as
// a whole. root is where values begin.
func (n *nfa) add(root, at int32, seq []*syntax.Regexp, pattern int32) {
	for len(seq) > 0 {
		if n.full() {
			return // whoever builds on it looks
		}
		head, last := seq[0], len(seq) == 1
		seq = seq[1:]
		switch head.Op {
		case syntax.OpEmptyMatch:
		case syntax.OpNoMatch:
			return
		case syntax.OpConcat:
			seq = append(slices.Clone(head.Sub), seq...)
		case syntax.OpCapture:
			seq = append([]*syntax.Regexp{head.Sub[0]}, seq...)
		case syntax.OpLiteral:
			for _, r := range head.Rune {
				if head.Flags&syntax.FoldCase != 0 {
					at = n.class(at, folded(r))
				} else {
					at = n.class(at, []rune{r, r})
				}
			}
		case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
			class := ranges(head)
			if len(class) == 0 {
				return
			}
			at = n.class(at, class)
		case syntax.OpBeginText:
			if at != root {
				at = n.fragment(at, head)
			}
		case syntax.OpEndText:
			if !last {
				at = n.fragment(at, head)
			}
		case syntax.OpAlternate:
			if last {
				for _, sub := range head.Sub {
					n.add(root, at, []*syntax.Regexp{sub}, pattern)
				}
				return
			}
			at = n.fragment(at, head)
		case syntax.OpQuest:
			if last {
				n.add(root, at, head.Sub, pattern)
				break // and the end, below
			}
			at = n.fragment(at, head)
		case syntax.OpPlus:
			if ranges(head.Sub[0]) == nil {
				at = n.fragment(at, head)
				break
			}
			star := &syntax.Regexp{Op: syntax.OpStar, Flags: head.Flags, Sub: head.Sub}
			seq = append([]*syntax.Regexp{head.Sub[0], star}, seq...)
		case syntax.OpStar:
			if last && n.emits && isAny(head.Sub[0]) {
				n.out(&n.states[at].emit, pattern)
				return
			}
			at = n.fragment(at, head)
		default:
			at = n.fragment(at, head)
		}
	}
	n.out(&n.states[at].end, pattern)
}

// isAny reports whether a tree is a dot. Where the dot is not a newline, whoever was told
// early that .* matches has to look for one in what follows.
func isAny(re *syntax.Regexp) bool {
	return re.Op == syntax.OpAnyChar || re.Op == syntax.OpAnyCharNotNL
}

// class returns the state behind one rune of a class.
func (n *nfa) class(at int32, class []rune) int32 {
	key := shareKey{from: at, lo: class[0], hi: class[1]}
	if len(class) > 2 {
		key.text = string(appendRunes(nil, class))
	}
	to, ok := n.shared[key]
	if !ok {
		to = n.state()
		n.consumeClass(at, class, to)
		n.shared[key] = to
	}
	return to
}

func (n *nfa) consumeClass(at int32, class []rune, to int32) {
	for i := 0; i+1 < len(class); i += 2 {
		n.consume(at, class[i], class[i+1], to)
	}
}

// fragment returns the state behind a tree that is more than a rune.
func (n *nfa) fragment(at int32, re *syntax.Regexp) int32 {
	key := shareKey{from: at, lo: -1, text: string(appendTree(nil, re))}
	to, ok := n.shared[key]
	if !ok {
		to = n.state()
		n.link(at, n.compile(re, to))
		n.shared[key] = to
	}
	return to
}

// appendTree writes a tree so that only equal ones read the same. It is here because
// Regexp.String takes long over large classes.
func appendTree(dst []byte, re *syntax.Regexp) []byte {
	dst = append(dst, byte(re.Op), byte(re.Flags&syntax.FoldCase))
	dst = appendRunes(dst, re.Rune)
	dst = binary.AppendUvarint(dst, uint64(len(re.Sub)))
	for _, sub := range re.Sub {
		dst = appendTree(dst, sub)
	}
	return dst
}

func appendRunes(dst []byte, runes []rune) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(runes)))
	for _, r := range runes {
		dst = binary.AppendUvarint(dst, uint64(r))
	}
	return dst
}

// compile returns the state from which a tree leads to next (Thompson's construction).
func (n *nfa) compile(re *syntax.Regexp, next int32) int32 {
	if n.full() {
		return next
	}
	switch re.Op {
	case syntax.OpEmptyMatch:
		return next
	case syntax.OpCapture:
		return n.compile(re.Sub[0], next)
	case syntax.OpConcat:
		for _, sub := range slices.Backward(re.Sub) {
			next = n.compile(sub, next)
		}
		return next
	case syntax.OpLiteral:
		for _, r := range slices.Backward(re.Rune) {
			at := n.state()
			if re.Flags&syntax.FoldCase != 0 {
				n.consumeClass(at, folded(r), next)
			} else {
				n.consume(at, r, r, next)
			}
			next = at
		}
		return next
	}
	at := n.state()
	switch re.Op {
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		n.consumeClass(at, ranges(re), next)
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			n.link(at, n.compile(sub, next))
		}
	case syntax.OpQuest:
		n.link(at, next)
		n.link(at, n.compile(re.Sub[0], next))
	case syntax.OpStar:
		n.link(at, next)
		n.link(at, n.compile(re.Sub[0], at))
	case syntax.OpPlus:
		n.link(at, next)
		start := n.compile(re.Sub[0], at)
		n.link(at, start)
		return start
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		n.states[at].cond = condition(re.Op)
		n.conds = true
		n.link(at, next)
	}
	return at // OpNoMatch: no way on
}

func condition(op syntax.Op) syntax.EmptyOp {
	switch op {
	case syntax.OpBeginLine:
		return syntax.EmptyBeginLine
	case syntax.OpEndLine:
		return syntax.EmptyEndLine
	case syntax.OpBeginText:
		return syntax.EmptyBeginText
	case syntax.OpEndText:
		return syntax.EmptyEndText
	case syntax.OpWordBoundary:
		return syntax.EmptyWordBoundary
	}
	return syntax.EmptyNoWordBoundary
}

// ranges lists the runes that a tree of one rune consumes, as pairs of first and last,
// ascending; nil for any other tree.
func ranges(re *syntax.Regexp) []rune {
	switch re.Op {
	case syntax.OpAnyChar:
		return []rune{0, maxRune}
	case syntax.OpAnyCharNotNL:
		return []rune{0, '\n' - 1, '\n' + 1, maxRune}
	case syntax.OpCharClass:
		return re.Rune
	}
	return nil
}

// folded lists a rune and those that differ from it in case only.
func folded(r rune) []rune {
	class := []rune{r}
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		class = append(class, f)
	}
	slices.Sort(class)
	pairs := make([]rune, 0, 2*len(class))
	for _, c := range class {
		pairs = append(pairs, c, c)
	}
	return pairs
}
