package httpproxy

import (
	"bytes"
	"strings"
)

// methods are those by which HTTP/1 is known where it need not be HTTP: RFC 9110,
// section 9, and RFC 5789.
var methods = []string{"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "CONNECT ", "OPTIONS ", "TRACE ", "PATCH "}

// Looks reports whether what a client says first begins an HTTP/1 request. It may be
// just the first byte of it.
func Looks(first []byte) bool {
	first = bytes.TrimLeft(first, "\r\n")
	for _, m := range methods {
		if n := min(len(first), len(m)); n > 0 && strings.HasPrefix(m, string(first[:n])) {
			return true
		}
	}
	return false
}
