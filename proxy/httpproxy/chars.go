package httpproxy

// Classes of bytes.
const (
	isToken      = 1 << iota // RFC 9110 section 5.6.2, tchar
	isValue                  // in a field value or reason phrase: HTAB, SP, VCHAR, obs-text
	isTarget                 // may stand in a request target as it is
	isUnreserved             // RFC 3986 section 2.3
	isHost                   // in a Host: reg-name without percent-encoding, IP-literal, port
)

// class is constant after initialisation.
var class = func() (t [256]uint8) {
	for c := range t {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		digit := '0' <= c && c <= '9'
		if letter || digit || in(c, "!#$%&'*+-.^_`|~") {
			t[c] |= isToken
		}
		if c == '\t' || c >= ' ' && c != 0x7f {
			t[c] |= isValue
		}
		if c > ' ' && c < 0x7f && c != '#' {
			t[c] |= isTarget
		}
		if letter || digit || in(c, "-._~") {
			t[c] |= isUnreserved
		}
		if letter || digit || in(c, "-._~") {
			t[c] |= isHost
		}
	}
	return t
}()

func in(c int, set string) bool {
	for i := range len(set) {
		if int(set[i]) == c {
			return true
		}
	}
	return false
}

// unhex returns the value of a hex digit, or -1.
func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
