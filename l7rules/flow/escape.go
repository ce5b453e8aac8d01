package flow

import "unicode/utf8"

const hex = "0123456789abcdef"

// AppendEscaped adds bytes that anybody may have chosen as one word of printable
// ASCII: everything else, blanks included, becomes \xNN and a backslash \\, so that
// no value can end a line, forge a field or move a terminal's cursor.
func AppendEscaped[T string | []byte](dst []byte, v T) []byte {
	return appendEscaped(dst, v, ' ')
}

// appendSentence is AppendEscaped that leaves blanks as they are.
func appendSentence(dst []byte, v string) []byte { return appendEscaped(dst, v, ' '-1) }

func appendEscaped[T string | []byte](dst []byte, v T, lowest byte) []byte {
	start := 0
	for i := range len(v) {
		c := v[i]
		if c > lowest && c <= '~' && c != '\\' {
			continue
		}
		dst = append(dst, v[start:i]...)
		if c == '\\' {
			dst = append(dst, `\\`...)
		} else {
			dst = append(dst, '\\', 'x', hex[c>>4], hex[c&0xf])
		}
		start = i + 1
	}
	return append(dst, v[start:]...)
}

// AppendJSONString adds v as a JSON string. Bytes that are no UTF-8 become U+FFFD, as
// encoding/json has it.
func AppendJSONString[T string | []byte](dst []byte, v T) []byte {
	dst = append(dst, '"')
	dst = AppendJSONText(dst, v)
	return append(dst, '"')
}

// AppendJSONText is AppendJSONString without the quotes around it.
func AppendJSONText[T string | []byte](dst []byte, v T) []byte {
	start := 0
	for i := 0; i < len(v); {
		c := v[i]
		if c >= ' ' && c <= '~' && c != '"' && c != '\\' {
			i++
			continue
		}
		size, valid := 1, c < utf8.RuneSelf
		if !valid {
			size, valid = runeLen(v, i)
		}
		// U+2028 and U+2029 are left alone by JSON and end a line in JavaScript;
		// C1 control characters move terminals.
		if valid && size > 1 && !(size == 2 && c == 0xc2 && v[i+1] < 0xa0) && !(size == 3 && c == 0xe2 && v[i+1] == 0x80 && v[i+2]&^1 == 0xa8) {
			i += size
			continue
		}
		dst = append(dst, v[start:i]...)
		switch {
		case !valid:
			dst = append(dst, `\ufffd`...)
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case size == 1:
			dst = append(dst, `\u00`...)
			dst = append(dst, hex[c>>4], hex[c&0xf])
		case size == 2:
			dst = append(dst, `\u00`...)
			dst = append(dst, hex[v[i+1]>>4], hex[v[i+1]&0xf])
		default:
			dst = append(dst, `\u202`...)
			dst = append(dst, hex[v[i+2]&0xf])
		}
		i += size
		start = i
	}
	return append(dst, v[start:]...)
}

// runeLen is the length of the UTF-8 sequence at i and whether it is one.
func runeLen[T string | []byte](v T, i int) (int, bool) {
	var buf [utf8.UTFMax]byte
	n := copy(buf[:], v[i:min(i+utf8.UTFMax, len(v))])
	r, size := utf8.DecodeRune(buf[:n])
	return size, r != utf8.RuneError || size > 1
}
