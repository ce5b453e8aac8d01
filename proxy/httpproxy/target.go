package httpproxy

// canonicalTarget brings a path with its query to the one form that rules see
// and the origin gets, in place, and returns its new length. The path loses
// percent-encoding that means nothing (RFC 3986, section 6.2.2.2), dot segments
// (section 5.2.4) and empty segments; what servers are known to understand in
// different ways is an error. b begins with a slash and holds only isTarget bytes.
func canonicalTarget(b []byte) (int, error) {
	w := 1       // b[:w] is canonical
	segment := 1 // where its last segment begins
	percent := false
	for r := 1; ; {
		if r == len(b) || b[r] == '/' || b[r] == '?' {
			end := r == len(b) || b[r] == '?'
			switch seg := b[segment:w]; {
			case len(seg) == 0 || len(seg) == 1 && seg[0] == '.':
				w = segment
			case len(seg) == 2 && seg[0] == '.' && seg[1] == '.':
				w = parent(b, segment)
			case dotWithParameter(seg):
				return 0, errDotParameter
			case !end:
				b[w] = '/'
				w++
			}
			segment = w
			if !end {
				r++
				continue
			}
			if percent && doublyEncoded(b[:w]) {
				return 0, errDoubleEncoding
			}
			return canonicalQuery(b, w, r)
		}
		switch c := b[r]; c {
		case '\\':
			return 0, errBackslash
		case '%':
			v, err := unescape(b, r)
			if err == nil {
				err = checkEscaped(b, r, v)
			}
			if err != nil {
				return 0, err
			}
			percent = percent || v == '%'
			w = putEscaped(b, w, v)
			r += 3
		default:
			b[w] = c
			w++
			r++
		}
	}
}

// canonicalQuery appends the query b[r:], question mark included, at w.
func canonicalQuery(b []byte, w, r int) (int, error) {
	for r < len(b) {
		if b[r] != '%' {
			b[w] = b[r]
			w++
			r++
			continue
		}
		v, err := unescape(b, r)
		if err != nil {
			return 0, err
		}
		w = putEscaped(b, w, v)
		r += 3
	}
	return w, nil
}

// parent returns where the segment before the one at segment begins; the root's
// parent is the root.
func parent(b []byte, segment int) int {
	if segment == 1 {
		return 1
	}
	segment--
	for b[segment-1] != '/' {
		segment--
	}
	return segment
}

func unescape(b []byte, i int) (byte, error) {
	if i+2 >= len(b) {
		return 0, errPercent
	}
	hi, lo := unhex(b[i+1]), unhex(b[i+2])
	if hi < 0 || lo < 0 {
		return 0, errPercent
	}
	return byte(hi<<4 | lo), nil
}

// checkEscaped refuses the escaped byte v at b[r:] of a path where a server might
// see a separator, an end or a dot that the rules did not.
func checkEscaped(b []byte, r int, v byte) error {
	switch {
	case v < ' ' || v == 0x7f:
		return errEncodedControl
	case v == '/' || v == '\\':
		return errEncodedSlash
	case v == 0xc0 || v == 0xc1 || v >= 0xf5:
		return errOverlong
	case v == 0xe0 || v == 0xf0:
		// The next byte says whether a shorter form exists.
		if r+5 < len(b) && b[r+3] == '%' {
			next, err := unescape(b, r+3)
			if err == nil && next&0xc0 == 0x80 && (v == 0xe0 && next < 0xa0 || v == 0xf0 && next < 0x90) {
				return errOverlong
			}
		}
	}
	return nil
}

// putEscaped writes v at b[w:]: itself if it is unreserved, else escaped in upper case.
func putEscaped(b []byte, w int, v byte) int {
	if class[v]&isUnreserved != 0 {
		b[w] = v
		return w + 1
	}
	const hex = "0123456789ABCDEF"
	b[w], b[w+1], b[w+2] = '%', hex[v>>4], hex[v&15]
	return w + 3
}

// dotWithParameter reports segments such as "..;x", which some servers take for
// "..". Escaped semicolons count.
func dotWithParameter(seg []byte) bool {
	i := 0
	for i < len(seg) && seg[i] == '.' {
		i++
	}
	if i == 0 || i > 2 || i == len(seg) {
		return false
	}
	return seg[i] == ';' || len(seg) >= i+3 && string(seg[i:i+3]) == "%3B"
}

// doublyEncoded reports whether decoding path once more would give a dot, slash,
// backslash, percent sign or NUL. It looks at the canonical form: %25%32%65 is
// %252e there.
func doublyEncoded(path []byte) bool {
	for i := 0; i+4 < len(path); i++ {
		if path[i] != '%' || path[i+1] != '2' || path[i+2] != '5' {
			continue
		}
		hi, lo := unhex(path[i+3]), unhex(path[i+4])
		if hi < 0 || lo < 0 {
			continue
		}
		switch hi<<4 | lo {
		case '.', '/', '\\', '%', 0:
			return true
		}
	}
	return false
}
