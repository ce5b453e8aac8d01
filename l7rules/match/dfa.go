package match

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"
)

// Bounds of a dfa: beyond them regexp runs instead.
const (
	maxStates = 128
	maxInsts  = 512
)

// dfa decides a whole value of ASCII bytes in one pass. Paths and hosts in canonical form
// are ASCII; for what is not, the caller asks regexp.
type dfa struct {
	class  [128]uint8 // of a byte: bytes that no instruction tells apart
	width  int        // number of classes
	next   []uint8    // by state*width + class; 0 is dead, 1 the start
	accept []bool     // by state
}

// newDFA builds the automaton of a tree by sets of instructions (Thompson's construction
// is syntax.Compile's; this is the subset construction over it). It returns nil where that
// would take too much, or where the tree looks around a position.
func newDFA(tree *syntax.Regexp) *dfa {
	prog, err := syntax.Compile(tree)
	if err != nil || len(prog.Inst) > maxInsts {
		return nil
	}
	for i := range prog.Inst {
		if prog.Inst[i].Op == syntax.InstEmptyWidth {
			return nil
		}
	}
	d := &dfa{}
	heads := d.classify(prog)
	if heads == nil {
		return nil
	}
	sets := [][]uint32{nil, closure(prog, []uint32{uint32(prog.Start)})}
	ids := map[string]uint8{"": 0, key(sets[1]): 1}
	for s := 0; s < len(sets); s++ {
		d.accept = append(d.accept, slices.ContainsFunc(sets[s], func(pc uint32) bool { return prog.Inst[pc].Op == syntax.InstMatch }))
		for _, head := range heads {
			var to []uint32
			for _, pc := range sets[s] {
				if in := &prog.Inst[pc]; consumes(in, head) {
					to = append(to, in.Out)
				}
			}
			to = closure(prog, to)
			id, ok := ids[key(to)]
			if !ok {
				if len(sets) == maxStates {
					return nil
				}
				id = uint8(len(sets))
				ids[key(to)] = id
				sets = append(sets, to)
			}
			d.next = append(d.next, id)
		}
	}
	return d
}

// classify fills class and returns a byte of each, nil if there are too many.
func (d *dfa) classify(prog *syntax.Prog) (heads []byte) {
	ids := map[string]uint8{}
	var row []byte
	for c := range d.class {
		row = row[:0]
		for i := range prog.Inst {
			if consumes(&prog.Inst[i], byte(c)) {
				row = binary.AppendUvarint(row, uint64(i))
			}
		}
		id, ok := ids[string(row)]
		if !ok {
			id = uint8(len(heads))
			ids[string(row)] = id
			heads = append(heads, byte(c))
		}
		d.class[c] = id
	}
	d.width = len(heads)
	return heads
}

func consumes(in *syntax.Inst, c byte) bool {
	switch in.Op {
	case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return in.MatchRune(rune(c))
	}
	return false
}

// closure follows what consumes nothing, and returns the instructions that consume or
// match, sorted.
func closure(prog *syntax.Prog, from []uint32) []uint32 {
	var set []uint32
	seen := map[uint32]bool{}
	for stack := slices.Clone(from); len(stack) > 0; {
		pc := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if seen[pc] {
			continue
		}
		seen[pc] = true
		switch in := &prog.Inst[pc]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			stack = append(stack, in.Out, in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			stack = append(stack, in.Out)
		case syntax.InstFail:
		default:
			set = append(set, pc)
		}
	}
	slices.Sort(set)
	return set
}

func key(set []uint32) string {
	var b []byte
	for _, pc := range set {
		b = binary.AppendUvarint(b, uint64(pc))
	}
	return string(b)
}

// match runs value through. ok is false where value is not ASCII, and nothing is known.
func (d *dfa) match(value []byte) (matched, ok bool) {
	state := 1
	for _, c := range value {
		if c >= 128 {
			return false, false
		}
		if state = int(d.next[state*d.width+int(d.class[c])]); state == 0 {
			break
		}
	}
	// A dead state stays dead whatever follows, ASCII or not.
	return d.accept[state], true
}
