package match

import "encoding/binary"

// Image is the set as bytes for those who walk it without Go, a BPF program for instance.
// ok is false where some pattern is in none of its automata: then whoever walks them does
// not know whether it matches.
//
// All numbers are of 32 bits, little endian, at multiples of four; offsets are from the
// beginning. bit n is 1<<n.
//
//	0  "WMS1"
//	4  offset of the fixed strings, 0 if there are none
//	8  number of automata, at most 16
//	12 offset of each
//
// An automaton:
//
//	0   the state to begin with
//	4   number of cells
//	8   number of output words
//	12  a class for each of the 256 values of a byte, one byte each
//	268 the cells, two words each: HI, LO
//	    then the output words
//
// A state is the index of its first cell; bit 30, LOOK, is not part of the index. The HI of
// a state's first cell is bit 31 and the state that follows unless a cell says otherwise, the
// LO what it reports: nothing if it is 0; with bits 31 and 30 the pattern whose number the other
// bits are, when it is entered; with bit 31 alone that pattern, if the value ends in it; without
// bit 31 it is an index of output words. For a byte of class c look at cell state+1+c: if its HI is the
// state (without LOOK), its LO is the state that follows. These cells exist for every class.
//
// Output words at an index: how many patterns the state reports when it is entered, their
// numbers; how many it reports if the value ends in it, their numbers.
//
// To walk: begin with the first state. Whenever a state has LOOK, the first one included:
// state 0 is dead, stop, nothing more matches; of another one take the patterns that it
// reports when it is entered. They match if neither the byte that led there, nor the three
// before it, nor one that follows in the value is a newline; where one is, this automaton does
// not know about them. When the value is at its end, take the patterns
// that the last state reports then. A pattern may come more than once.
//
// The fixed strings:
//
//	0  number of slots S, a power of two
//	4  bytes of entries E, a multiple of four
//	8  number of output words
//	12 the slots, one word each; then the entries; then the output words
//
// To find a value take its hash, see below. Look at slot hash mod S, then at the one behind
// it, and so on round, until one is 0, and at least one is. Where bits 24 to 31 of the slot
// are those of the hash, four times its bits 0 to 23 is an offset among the entries: of the
// length of a string, of what matches it, and of the string. What matches it is a pattern's
// number with bit 31; or else an index of output words: how many patterns, their numbers.
//
// The hash begins with the length as a number H of 64 bits. To mix a number W of 64 bits in,
// H = (H xor W) * 0x9E3779B97F4A7C15, then H = H xor (H >> 32). Of a value of less than eight
// bytes mix in one W, its bytes little endian and zeros behind them. Of a longer one mix in
// its bytes by eight from the beginning as long as there are eight, then its last eight. The
// hash is the low half of H.
func (s *Set) Image() (image []byte, ok bool) {
	le := binary.LittleEndian
	image = append(image, "WMS1"...)
	image = le.AppendUint32(image, 0)
	image = le.AppendUint32(image, uint32(len(s.tables)))
	image = append(image, make([]byte, 4*len(s.tables))...)
	for i, t := range s.tables {
		le.PutUint32(image[12+4*i:], uint32(len(image)))
		image = le.AppendUint32(image, t.start)
		image = le.AppendUint32(image, uint32(len(t.cells)))
		image = le.AppendUint32(image, uint32(len(t.outs)))
		image = append(image, t.class[:]...)
		for _, c := range t.cells {
			image = le.AppendUint32(le.AppendUint32(image, c.hi), c.lo)
		}
		for _, out := range t.outs {
			image = le.AppendUint32(image, out)
		}
	}
	if l := &s.literals; len(l.slots) > 0 {
		le.PutUint32(image[4:], uint32(len(image)))
		image = le.AppendUint32(image, uint32(len(l.slots)))
		image = le.AppendUint32(image, uint32(len(l.text)))
		image = le.AppendUint32(image, uint32(len(l.outs)))
		for _, slot := range l.slots {
			image = le.AppendUint32(image, slot)
		}
		image = append(image, l.text...)
		for _, out := range l.outs {
			image = le.AppendUint32(image, out)
		}
	}
	return image, len(s.single) == 0
}

// Size is the memory that the set takes beside its patterns, in bytes.
func (s *Set) Size() int {
	n := 4*len(s.literals.slots) + len(s.literals.text) + 4*len(s.literals.outs) + 4*len(s.single) + 8*len(s.patterns)
	for _, t := range s.tables {
		n += t.size()
	}
	return n
}

// Unbounded returns the patterns whose automaton is too large, which are matched one by
// one.
func (s *Set) Unbounded() []int {
	var all []int
	for _, i := range s.single {
		all = append(all, int(i))
	}
	return all
}
