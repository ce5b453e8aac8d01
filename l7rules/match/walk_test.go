package match

import (
	"encoding/binary"
	"slices"
)

// walkImage is what the comment on Image says, word by word, and nothing cleverer. ok is
// false where the image does not know.
func walkImage(image, value []byte) (numbers []uint32, ok bool) {
	word := func(at uint32) uint32 { return binary.LittleEndian.Uint32(image[at:]) }
	take := func(at uint32) (behind uint32) {
		n := word(at)
		for i := range n {
			numbers = append(numbers, word(at+4+4*i))
		}
		return at + 4 + 4*n
	}
	if string(image[:4]) != "WMS1" {
		return nil, false
	}
	const look = 1 << 30
	for i := range word(8) {
		automaton := word(12 + 4*i)
		cells := automaton + 268
		outs := cells + 8*word(automaton+4)
		state := word(automaton)
		early := -1
		step := 0
		for {
			if state&look != 0 {
				state &^= look
				if state == 0 {
					break
				}
				if early < 0 {
					early = max(step-4, 0)
				}
				if out := word(cells + 8*state + 4); out>>30 == 3 {
					numbers = append(numbers, out&(1<<30-1))
				} else if out>>31 == 0 {
					take(outs + 4*out)
				}
			}
			if step == len(value) {
				if out := word(cells + 8*state + 4); out>>30 == 2 {
					numbers = append(numbers, out&(1<<30-1))
				} else if out>>31 == 0 {
					at := outs + 4*out
					take(at + 4 + 4*word(at))
				}
				break
			}
			class := uint32(image[automaton+12+uint32(value[step])])
			step++
			if cell := cells + 8*(state+1+class); word(cell) == state {
				state = word(cell + 4)
			} else {
				state = word(cells+8*state) &^ (1 << 31)
			}
		}
		if early >= 0 && slices.Contains(value[early:], '\n') {
			return nil, false
		}
	}
	if fixed := word(4); fixed != 0 {
		slots, entries := fixed+12, fixed+12+4*word(fixed)
		outs := entries + word(fixed+4)
		h := walkHash(value)
		for at := h; ; at++ {
			slot := word(slots + 4*(at%word(fixed)))
			if slot == 0 {
				break
			}
			entry := entries + 4*(slot&0xFFFFFF)
			if slot>>24 != h>>24 || int(word(entry)) != len(value) || string(image[entry+8:entry+8+word(entry)]) != string(value) {
				continue
			}
			if out := word(entry + 4); out>>31 != 0 {
				numbers = append(numbers, out&0x7FFFFFFF)
			} else {
				take(outs + 4*out)
			}
			break
		}
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), true
}

func walkHash(v []byte) uint32 {
	h := uint64(len(v))
	mix := func(b []byte) {
		var w [8]byte
		copy(w[:], b)
		h = (h ^ binary.LittleEndian.Uint64(w[:])) * 0x9E3779B97F4A7C15
		h ^= h >> 32
	}
	if len(v) < 8 {
		mix(v)
		return uint32(h)
	}
	for rest := v; len(rest) >= 8; rest = rest[8:] {
		mix(rest[:8])
	}
	mix(v[len(v)-8:])
	return uint32(h)
}
