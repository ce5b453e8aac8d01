package match

import (
	"encoding/binary"
	"maps"
	"math/bits"
	"slices"
)

// literals finds a whole value among fixed strings by one hash. Image describes it byte
// by byte.
type literals struct {
	slots []uint32 // a power of two of them, some empty, or none
	text  []byte   // entries, each at a multiple of four
	outs  []uint32
}

// A slot is the entry's place in text divided by four, and the highest byte of its hash. An
// entry has the length of the string, what matches it, both in four bytes, and the string.
// What matches it is the number of a pattern with soleBit; or an index of outs, where the
// number of patterns stands and their numbers follow.
const (
	slotPlace = 1<<24 - 1
	soleBit   = 1 << 31
	entryHead = 8

	// maxLiteralText bounds the text, in bytes: places reach 64 MiB.
	maxLiteralText = 16 << 20
)

// newLiterals makes the table of the strings that patterns, by their number, match.
func newLiterals(patterns map[string][]uint32) literals {
	if len(patterns) == 0 {
		return literals{}
	}
	l := literals{outs: []uint32{0}, slots: make([]uint32, 1<<bits.Len(uint(len(patterns)+len(patterns)/4)))}
	l.text = make([]byte, 4) // place 0 is an empty slot
	mask := uint32(len(l.slots) - 1)
	for _, text := range slices.Sorted(maps.Keys(patterns)) {
		numbers := patterns[text]
		out := soleBit | numbers[0]
		if len(numbers) > 1 {
			out = uint32(len(l.outs))
			l.outs = append(append(l.outs, uint32(len(numbers))), numbers...)
		}
		h := hash(text)
		at := h
		for l.slots[at&mask] != 0 {
			at++
		}
		l.slots[at&mask] = h&^slotPlace | uint32(len(l.text)/4)
		l.text = binary.LittleEndian.AppendUint32(l.text, uint32(len(text)))
		l.text = binary.LittleEndian.AppendUint32(l.text, out)
		l.text = append(l.text, text...)
		l.text = append(l.text, make([]byte, -len(l.text)&3)...)
	}
	return l
}

// append adds the numbers of the patterns that match value.
func (l *literals) append(list []uint32, value []byte) []uint32 {
	if len(l.slots) == 0 {
		return list
	}
	h := hash(value)
	for at := h; ; at++ {
		s := l.slots[at&uint32(len(l.slots)-1)]
		if s == 0 {
			return list
		}
		if (s^h)&^slotPlace != 0 {
			continue
		}
		entry := l.text[s&slotPlace*4:]
		if n := int(binary.LittleEndian.Uint32(entry)); n != len(value) || string(entry[entryHead:entryHead+n]) != string(value) {
			continue
		}
		out := binary.LittleEndian.Uint32(entry[4:])
		if out&soleBit != 0 {
			return append(list, out&^soleBit)
		}
		return append(list, l.outs[out+1:out+1+l.outs[out]]...)
	}
}

// hash mixes the length, then the words of eight bytes, little endian, that follow each
// other, then the last eight bytes once more; of less than eight bytes one word with zeros
// behind them.
func hash[T string | []byte](v T) uint32 {
	h := uint64(len(v))
	if len(v) < 8 {
		return uint32(mix(h, short(v)))
	}
	last := word(v[len(v)-8:])
	for ; len(v) >= 8; v = v[8:] {
		h = mix(h, word(v))
	}
	return uint32(mix(h, last))
}

func mix(h, w uint64) uint64 {
	h = (h ^ w) * 0x9E3779B97F4A7C15
	return h ^ h>>32
}

func word[T string | []byte](v T) uint64 {
	_ = v[7]
	return uint64(v[0]) | uint64(v[1])<<8 | uint64(v[2])<<16 | uint64(v[3])<<24 |
		uint64(v[4])<<32 | uint64(v[5])<<40 | uint64(v[6])<<48 | uint64(v[7])<<56
}

func short[T string | []byte](v T) (w uint64) {
	for i := len(v) - 1; i >= 0; i-- {
		w = w<<8 | uint64(v[i])
	}
	return w
}
