package prove

import "strings"

// domain is the set of values that a field of a request can have once the proxy has
// brought it to its canonical form: an automaton over ASCII. State 0 is dead, 1 the start.
type domain struct {
	name   string
	next   [][128]uint16
	accept []bool
	// order lists all bytes, those that people like to read first.
	order string
}

// build makes a domain of a machine over states of any type. step returns false where
// nothing that begins like this is in the domain.
func build[S comparable](name, order string, start S, step func(S, byte) (S, bool), accept func(S) bool) *domain {
	d := &domain{name: name, order: order, next: make([][128]uint16, 2), accept: make([]bool, 2)}
	ids := map[S]uint16{start: 1}
	list := []S{start, start}
	for i := 1; i < len(list); i++ {
		for c := range 128 {
			to, ok := step(list[i], byte(c))
			if !ok {
				continue
			}
			id, known := ids[to]
			if !known {
				id = uint16(len(list))
				ids[to] = id
				list = append(list, to)
				d.next = append(d.next, [128]uint16{})
				d.accept = append(d.accept, false)
			}
			d.next[i][c] = id
		}
		d.accept[i] = accept(list[i])
	}
	return d
}

const (
	lowers  = "abcdefghijklmnopqrstuvwxyz"
	uppers  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits  = "0123456789"
	special = "-_.~/?=&:+,;!$'()*@[]^`{|}\"<>%\\#"
)

// methods are the tokens of RFC 9110 section 5.6.2, but for CONNECT, which the proxy
// always refuses.
func methods() *domain {
	const refused = "CONNECT"
	return build("method", uppers+lowers+digits+special, 0, func(n int, c byte) (int, bool) {
		if !isTokenByte(c) {
			return 0, false
		}
		if n >= 0 && n < len(refused) && refused[n] == c {
			return n + 1, true
		}
		return -1, true
	}, func(n int) bool { return n != 0 && n != len(refused) })
}

func isTokenByte(c byte) bool {
	return isAlnum(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// hosts are Host and :authority in lower case: nothing, a name or an address in
// brackets, and a port.
func hosts() *domain {
	const (
		start = iota
		name
		open    // behind the bracket
		literal // in brackets
		closed
		port // and the number of its digits
	)
	const maxDigits = 5
	return build("host", lowers+digits+special+uppers, start, func(s int, c byte) (int, bool) {
		switch {
		case (s == start || s == name) && (isAlnum(c) && (c < 'A' || c > 'Z') || strings.IndexByte("-._~", c) >= 0):
			return name, true
		case s == start && c == '[':
			return open, true
		case (s == open || s == literal) && (c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c == ':' || c == '.'):
			return literal, true
		case s == literal && c == ']':
			return closed, true
		case (s == name || s == closed) && c == ':':
			return port, true
		case s >= port && s < port+maxDigits && c >= '0' && c <= '9':
			return s + 1, true
		}
		return 0, false
	}, func(s int) bool { return s != open && s != literal })
}

// segment says what the path's last segment is so far.
type segment uint8

const (
	emptySegment segment = iota
	dot
	dotDot
	otherSegment
)

// target is how far a request target is read.
type target struct {
	phase   uint8 // 0 before the first slash, 1 in the path, 2 in the query, 3 behind "*"
	segment segment
	escape  uint8 // 1 behind a percent sign, 2 behind its first digit
	high    byte  // that digit's value
	// percent is 1 behind an escaped percent sign, 2 behind that and the hex digit
	// high: what would mean something if it was decoded once more is refused.
	percent uint8
	lead    byte // 0xe0 or 0xf0 directly before: what follows may be overlong
}

// paths are the canonical request targets: what proxy/httpproxy makes of the targets
// that it does not refuse. asterisk adds "*", which OPTIONS may name.
func paths(asterisk bool) *domain {
	name := "path"
	if asterisk {
		name = "path or *"
	}
	return build(name, lowers+digits+uppers+special, target{}, func(t target, c byte) (target, bool) {
		switch t.phase {
		case 0:
			if c == '*' && asterisk {
				return target{phase: 3}, true
			}
			return target{phase: 1}, c == '/'
		case 1, 2:
			if c <= ' ' || c >= 0x7f || c == '#' {
				return t, false
			}
			if t.escape > 0 {
				return t.escaped(c)
			}
			if t.phase == 2 {
				if c == '%' {
					t.escape = 1
				}
				return t, true
			}
			return t.plain(c)
		}
		return t, false
	}, target.end)
}

// end reports whether a target may end here.
func (t target) end() bool {
	return t.phase > 0 && t.escape == 0 && t.segment != dot && t.segment != dotDot
}

// plain reads a byte of the path outside of percent-encoding.
func (t target) plain(c byte) (target, bool) {
	lead, percent := t.lead, t.percent
	t.lead, t.percent = 0, 0
	if v := unhex(c); percent == 1 && (v == 0 || v == 2 || v == 5) {
		t.percent, t.high = 2, byte(v)
	} else if percent == 2 && v >= 0 {
		switch t.high<<4 | byte(v) {
		case '.', '/', '\\', '%', 0:
			return t, false
		}
	}
	if t.percent != 2 {
		t.high = 0
	}
	switch {
	case c == '\\':
		return t, false
	case c == '/':
		bad := t.segment == emptySegment || t.segment == dot || t.segment == dotDot
		return target{phase: 1}, !bad
	case c == '?':
		bad := t.segment == dot || t.segment == dotDot
		return target{phase: 2, segment: otherSegment}, !bad
	case c == '%':
		t.escape, t.lead = 1, lead
		return t, true
	case c == '.' && t.segment == emptySegment:
		t.segment = dot
	case c == '.' && t.segment == dot:
		t.segment = dotDot
	case c == ';' && (t.segment == dot || t.segment == dotDot):
		return t, false
	default:
		t.segment = otherSegment
	}
	return t, true
}

// escaped reads a digit of percent-encoding, which the canonical form has in upper case.
func (t target) escaped(c byte) (target, bool) {
	v := unhex(c)
	if v < 0 || c >= 'a' && c <= 'f' {
		return t, false
	}
	if t.escape == 1 {
		t.escape, t.high = 2, byte(v)
		return t, true
	}
	b := t.high<<4 | byte(v)
	lead := t.lead
	t.escape, t.high, t.lead = 0, 0, 0
	if isAlnum(b) || strings.IndexByte("-._~", b) >= 0 {
		return t, false // means nothing, so it would have been decoded
	}
	if t.phase == 2 {
		return t, true
	}
	switch {
	case b < ' ', b == 0x7f, b == '/', b == '\\', b == 0xc0, b == 0xc1, b >= 0xf5,
		lead == 0xe0 && b >= 0x80 && b < 0xa0, lead == 0xf0 && b >= 0x80 && b < 0x90,
		b == ';' && (t.segment == dot || t.segment == dotDot):
		return t, false
	}
	if b == 0xe0 || b == 0xf0 {
		t.lead = b
	}
	if b == '%' {
		t.percent = 1
	}
	t.segment = otherSegment
	return t, true
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
