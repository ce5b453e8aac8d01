package match

import (
	"cmp"
	"slices"
)

// table is a deterministic automaton over bytes, packed so that a state takes as many
// cells as it has ways on that are not its usual one. Image describes it byte by byte.
type table struct {
	class [256]uint8
	start uint32
	cells []cell
	outs  []uint32
}

// cell is one word of a table. The first of a state is its head: hi is headBit and where
// the state leads unless a cell says otherwise, lo what it reports: nothing if 0, one pattern
// if soleBit, when it is entered if earlyBit as well, else an index of outs. Cell s+1+c of state
// s is where class c leads if hi is s; else it belongs to another state or to none.
type cell struct{ hi, lo uint32 }

const (
	headBit  = 1 << 31 // in hi: the head of a state
	lookBit  = 1 << 30 // of a state one is led to: it is dead, or reports patterns
	noState  = 1<<30 - 1
	earlyBit = 1 << 30 // in lo
)

// pack makes a table of all states of s, whose steps are given by state; nil if that
// takes more than a number of bytes.
func pack(s *subsets, start int32, steps [][]byteStep, limit int) *table {
	t := &table{outs: []uint32{0, 0}}
	classes := t.classify(steps)
	numbers := t.numberClasses(steps, classes)
	bases, size := place(t, start, steps, numbers, limit/8)
	if 8*size > limit {
		return nil
	}
	t.cells = make([]cell, size)
	for i := range t.cells {
		t.cells[i].hi = noState
	}
	outs := map[[2]int32]uint32{{0, 0}: 0}
	ref := func(state int32) uint32 {
		if state == 0 || s.states[state].emit != 0 {
			return bases[state] | lookBit
		}
		return bases[state]
	}
	for state := range steps {
		st := &s.states[state]
		key := [2]int32{st.emit, st.end}
		out, ok := outs[key]
		early, end := s.lists[st.emit], s.lists[st.end]
		switch {
		case ok:
		case len(early) == 0 && len(end) == 1:
			out = soleBit | end[0]
			outs[key] = out
		case len(early) == 1 && len(end) == 0:
			out = soleBit | earlyBit | early[0]
			outs[key] = out
		default:
			out = uint32(len(t.outs))
			outs[key] = out
			for _, list := range key {
				t.outs = append(t.outs, uint32(len(s.lists[list])))
				t.outs = append(t.outs, s.lists[list]...)
			}
			if 8*size+4*len(t.outs) > limit {
				return nil
			}
		}
		base := bases[state]
		usual := t.usual(steps[state], classes)
		t.cells[base] = cell{headBit | ref(usual), out}
		t.unusual(steps[state], classes, usual, func(class int, to int32) {
			t.cells[base+1+numbers[class]] = cell{base, ref(to)}
		})
	}
	for b := range t.class {
		t.class[b] = uint8(numbers[t.class[b]])
	}
	t.start = ref(start)
	return t
}

// numberClasses gives low numbers to the classes that most cells are for: then the cells of
// states that follow each other are close together.
func (t *table) numberClasses(steps [][]byteStep, classes int) (numbers []uint32) {
	uses := make([]int, classes)
	order := make([]int, classes)
	for i := range order {
		order[i] = i
	}
	for _, list := range steps {
		t.unusual(list, classes, t.usual(list, classes), func(class int, _ int32) { uses[class]++ })
	}
	slices.SortStableFunc(order, func(a, b int) int { return uses[b] - uses[a] })
	numbers = make([]uint32, classes)
	for i, class := range order {
		numbers[class] = uint32(i)
	}
	return numbers
}

// classify numbers the bytes that no state tells apart from their neighbours.
func (t *table) classify(steps [][]byteStep) int {
	var first [257]bool
	for _, list := range steps {
		for _, st := range list {
			first[st.lo], first[int(st.hi)+1] = true, true
		}
	}
	n := 0
	for b := 1; b < 256; b++ {
		if first[b] {
			n++
		}
		t.class[b] = uint8(n)
	}
	return n + 1
}

// usual is where most classes lead.
func (t *table) usual(steps []byteStep, classes int) int32 {
	type count struct {
		to int32
		n  int
	}
	var few [8]count // what does not fit is not usual
	counts := few[:0]
	rest := classes
	for _, st := range steps {
		n := int(t.class[st.hi]) - int(t.class[st.lo]) + 1
		rest -= n
		i := slices.IndexFunc(counts, func(c count) bool { return c.to == st.to })
		switch {
		case i >= 0:
			counts[i].n += n
		case len(counts) < cap(counts):
			counts = append(counts, count{st.to, n})
		}
	}
	counts = append(counts, count{0, rest})
	return slices.MaxFunc(counts, func(a, b count) int { return cmp.Compare(a.n, b.n) }).to
}

// unusual calls f for every class that leads elsewhere.
func (t *table) unusual(steps []byteStep, classes int, usual int32, f func(class int, to int32)) {
	next := 0
	gap := func(end int) {
		if usual != 0 {
			for ; next < end; next++ {
				f(next, 0)
			}
		}
	}
	for _, st := range steps {
		first, last := int(t.class[st.lo]), int(t.class[st.hi])
		gap(first)
		if st.to != usual {
			for c := first; c <= last; c++ {
				f(c, st.to)
			}
		}
		next = last + 1
	}
	gap(classes)
}

// place finds the first cell of each state, states that follow each other close together.
// size is the number of cells; beyond limit it stops.
func place(t *table, start int32, steps [][]byteStep, numbers []uint32, limit int) (bases []uint32, size int) {
	classes := len(numbers)
	const tries = 64 // places that do not fit until what is before them is given up
	bases = make([]uint32, len(steps))
	var taken []bool
	low := 0 // cells before it are taken or given up
	put := func(state int32) {
		row := []int{0}
		t.unusual(steps[state], classes, t.usual(steps[state], classes), func(class int, _ int32) { row = append(row, 1+int(numbers[class])) })
		at := low
		for try := 0; ; try++ {
			if try > tries {
				low = at
			}
			for at < len(taken) && taken[at] {
				at++
			}
			fits := true
			for _, i := range row {
				if at+i < len(taken) && taken[at+i] {
					fits = false
					break
				}
			}
			if fits {
				break
			}
			at++
		}
		if need := at + classes + 1; need > len(taken) {
			taken = append(taken, make([]bool, need-len(taken))...)
		}
		for _, i := range row {
			taken[at+i] = true
		}
		for low < len(taken) && taken[low] {
			low++
		}
		bases[state] = uint32(at)
	}
	put(0) // dead, at 0
	seen := make([]bool, len(steps))
	seen[0] = true
	stack := []int32{start}
	for len(stack) > 0 && len(taken) <= limit {
		state := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if seen[state] {
			continue
		}
		seen[state] = true
		put(state)
		for _, st := range slices.Backward(steps[state]) {
			if !seen[st.to] {
				stack = append(stack, st.to)
			}
		}
	}
	return bases, len(taken)
}

// run adds to list[from:] the numbers of the patterns that match value. early is -1, or an
// index that is not behind the first report of a pattern that matches whatever follows,
// newlines apart.
func (t *table) run(list []uint32, from int, value []byte) (_ []uint32, early int) {
	early = -1
	cells := t.cells
	s := t.start
	if s&lookBit != 0 {
		s &^= lookBit
		if s == 0 {
			return list, early
		}
		list = t.report(list, from, cells[s].lo)
		early = 0
	}
	for i, b := range value {
		c := cells[s+1+uint32(t.class[b])]
		if c.hi == s {
			s = c.lo
		} else {
			s = cells[s].hi &^ headBit
		}
		if s&lookBit == 0 {
			continue
		}
		s &^= lookBit
		if s == 0 {
			return list, early
		}
		list = t.report(list, from, cells[s].lo)
		if early < 0 {
			early = max(i-3, 0) // what was no rune is known up to three bytes late
		}
	}
	switch out := cells[s].lo; {
	case out == 0 || out&(soleBit|earlyBit) == soleBit|earlyBit:
	case out&soleBit != 0:
		list = addOne(list, from, out&^soleBit)
	default:
		out += 1 + t.outs[out]
		list = add(list, from, t.outs[out+1:out+1+t.outs[out]])
	}
	return list, early
}

// report adds what a state reports when it is entered.
func (t *table) report(list []uint32, from int, out uint32) []uint32 {
	if out&soleBit != 0 {
		return addOne(list, from, out&^(soleBit|earlyBit))
	}
	return add(list, from, t.outs[out+1:out+1+t.outs[out]])
}

// size is the memory it takes, in bytes.
func (t *table) size() int { return len(t.class) + 8*len(t.cells) + 4*len(t.outs) }
