package redirect

import "math/bits"

// portPrefix is a range of ports that shares its first Bits bits.
type portPrefix struct {
	Port uint16
	Bits int // 0 every port, 16 one
}

// portPrefixes returns the fewest prefixes that cover exactly first to last.
func portPrefixes(first, last uint16) []portPrefix {
	var out []portPrefix
	lo, hi := uint32(first), uint32(last)
	for lo <= hi {
		// The largest block that starts at lo and ends by hi.
		size := uint(16)
		if lo != 0 {
			size = uint(bits.TrailingZeros32(lo))
		}
		for lo+(1<<size)-1 > hi {
			size--
		}
		out = append(out, portPrefix{uint16(lo), 16 - int(size)})
		lo += 1 << size
	}
	return out
}
