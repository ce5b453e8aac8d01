package match

import (
	"fmt"
	"slices"
)

// Bounds of Classes.
const (
	maxClassStates = 1 << 16
	maxClassWork   = 1 << 24
	maxClassKept   = 1 << 22
)

// Class is a set of patterns that some value matches, and matches no others.
type Class struct {
	Patterns []int  // their indices, ascending
	Witness  []byte // a shortest such value
}

// TooLargeError is why there are no Classes. It is an ErrTooLarge.
type TooLargeError struct {
	Pattern int // index of the one that is to blame, -1 for the domain
}

func (e *TooLargeError) Error() string {
	if e.Pattern < 0 {
		return "the automaton of the domain is too large"
	}
	return fmt.Sprintf("the automaton of the patterns is too large, mostly by pattern %d", e.Pattern)
}

func (e *TooLargeError) Unwrap() error { return ErrTooLarge }

// Classes returns every distinct set of patterns that some value matches at once, the
// empty one included if there is one, each exactly once with a shortest witness: two values
// of one class are the same to whoever knows the patterns. It is exact, not a sample.
//
// Only values that domain matches count; a nil domain is every sequence of bytes. The order
// is that of the witnesses, shorter ones first. A nil pattern matches nothing.
//
// Where that takes too much the error is a *TooLargeError: whatever the patterns, it is there
// in a second or two, and within some 100 MiB.
func Classes(domain *Pattern, patterns []*Pattern) ([]Class, error) {
	return classes(domain, patterns, budget{states: maxClassStates, work: maxClassWork, kept: maxClassKept})
}

func classes(domain *Pattern, patterns []*Pattern, limit budget) ([]Class, error) {
	n := newNFA(false)
	root := n.state()
	for i, p := range patterns {
		if p != nil {
			n.addPattern(root, p.tree(), int32(i)+1)
		}
		if n.full() {
			return nil, &TooLargeError{i}
		}
	}
	roots := []int32{root}
	var keep [2]int32
	if domain != nil {
		keep[0] = int32(len(n.states))
		own := n.state()
		n.shared = map[shareKey]int32{} // its states are its own
		n.addPattern(own, domain.tree(), 0)
		keep[1] = int32(len(n.states))
		roots = append(roots, own)
	}
	s := newSubsets(n, limit)
	s.keep = keep
	start := s.start(roots...)
	var steps [][]byteStep
	if err := s.run(func(_ int32, st []byteStep) { steps = append(steps, st) }); err != nil {
		return nil, &TooLargeError{s.blame() - 1}
	}
	return s.collectClasses(start, steps, domain != nil), nil
}

// collectClasses walks the states breadth first, so that the first value that ends in a
// class is a shortest one.
func (s *subsets) collectClasses(start int32, steps [][]byteStep, domain bool) []Class {
	type from struct {
		state int32
		by    byte
	}
	ranks := plainness()
	parents := make([]from, len(s.states))
	seen := make([]bool, len(s.states))
	listed := make([]bool, len(s.lists))
	queue := []int32{start}
	seen[start] = true
	var classes []Class
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		if end := s.states[at].end; !listed[end] && (!domain || len(s.lists[end]) > 0 && s.lists[end][0] == 0) {
			listed[end] = true
			c := Class{Patterns: []int{}}
			for _, p := range s.lists[end] {
				if p > 0 {
					c.Patterns = append(c.Patterns, int(p)-1)
				}
			}
			for st := at; st != start; st = parents[st].state {
				c.Witness = append(c.Witness, parents[st].by)
			}
			slices.Reverse(c.Witness)
			classes = append(classes, c)
		}
		next := steps[at]
		if !domain {
			next = fill(next, 0)
		}
		var fresh []from // by the plainest byte of each step
		for _, st := range next {
			if !seen[st.to] {
				best := st.lo
				for b := int(st.lo) + 1; b <= int(st.hi); b++ {
					if ranks[b] < ranks[best] {
						best = byte(b)
					}
				}
				fresh = append(fresh, from{st.to, best})
			}
		}
		slices.SortFunc(fresh, func(a, b from) int { return int(ranks[a.by]) - int(ranks[b.by]) })
		for _, f := range fresh {
			if !seen[f.state] {
				seen[f.state] = true
				parents[f.state] = from{at, f.by}
				queue = append(queue, f.state)
			}
		}
	}
	return classes
}

// plain are the bytes that a person would rather read in a witness, best first.
const plain = "abcdefghijklmnopqrstuvwxyz0123456789/ABCDEFGHIJKLMNOPQRSTUVWXYZ-_.~:?=&+,;!'()*@$%[]{}|<>\"#^`\\ "

// plainness ranks bytes by how well they read, lower is better.
func plainness() (ranks [256]uint16) {
	for b := range ranks {
		ranks[b] = uint16(len(plain) + b)
	}
	for i := range len(plain) {
		ranks[plain[i]] = uint16(i)
	}
	return ranks
}

// blame is the number of the pattern whose own threads stand in the most different sets.
func (s *subsets) blame() int {
	type own struct {
		pattern int
		threads string
	}
	seen := map[own]bool{}
	counts := make([]int, len(s.n.firsts))
	for i := range s.sets {
		for threads := s.sets[i].threads; len(threads) > 0; {
			// The last of those that begin there or before: some patterns add no state.
			next, _ := slices.BinarySearch(s.n.firsts, threads[0]+1)
			at, k := next-1, len(threads)
			if next < len(s.n.firsts) {
				k, _ = slices.BinarySearch(threads, s.n.firsts[next])
			}
			// The first states are everybody's.
			if at >= 0 {
				if o := (own{at, string(s.setKey(threads[:k], 0))}); !seen[o] {
					seen[o] = true
					counts[at]++
				}
			}
			threads = threads[k:]
		}
	}
	worst := 0
	for i, n := range counts {
		if n > counts[worst] {
			worst = i
		}
	}
	return int(s.n.patterns[worst])
}
