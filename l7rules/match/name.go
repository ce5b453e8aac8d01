package match

import (
	"fmt"
	"strings"
)

// MaxNameLen is the longest domain name or pattern of one, in bytes: RFC 1035 section
// 2.3.4 has 255 octets on the wire.
const MaxNameLen = 255

// Name is a domain name to compare with, or a pattern of them, as Cilium's matchName and
// matchPattern. Case and a final dot mean nothing. In a pattern
//
//   - "*" stands for any letters, digits, '-' and '_', also none, and never for a dot;
//   - a leading "**." stands for one or more whole labels;
//   - "*" alone stands for every name, the root's included.
//
// The zero value matches nothing.
type Name struct {
	source string
	text   string // lower case, no final dot, no leading "**."
	kind   nameKind
}

type nameKind uint8

const (
	nameNone nameKind = iota
	nameExact
	namePattern
	nameBelow // one or more labels before text
	nameAll
)

// CompileName reads a name without wildcards.
func CompileName(source string) (Name, error) {
	if i := strings.IndexByte(source, '*'); i >= 0 {
		return Name{}, fmt.Errorf("%q: a name has no *, which is for patterns", clipName(source))
	}
	text, err := checkName(source)
	return Name{source, text, nameExact}, err
}

// CompileNamePattern reads a pattern. One without wildcards is a name.
func CompileNamePattern(source string) (Name, error) {
	if strings.HasPrefix(source, "*") && strings.Trim(strings.TrimSuffix(source, "."), "*") == "" && len(source) <= MaxNameLen {
		return Name{source, "", nameAll}, nil
	}
	text, err := checkName(source)
	n := Name{source, text, namePattern}
	// As in Cilium, any number of stars is one, but before a leading dot more than one
	// stand for labels.
	stars := len(text) - len(strings.TrimLeft(text, "*"))
	switch {
	case stars > 1 && strings.HasPrefix(text[stars:], "."):
		n.kind, n.text = nameBelow, text[stars+1:]
	case !strings.Contains(text, "*"):
		n.kind = nameExact
	}
	return n, err
}

// checkName returns a name or pattern in the form that is compared.
func checkName(source string) (string, error) {
	if source == "" {
		return "", fmt.Errorf("a name is missing")
	}
	if len(source) > MaxNameLen {
		return "", fmt.Errorf("%q: longer than %d bytes", clipName(source), MaxNameLen)
	}
	text := strings.ToLower(strings.TrimSuffix(source, "."))
	for i := range len(text) {
		if !isNameByte(text[i]) && text[i] != '*' && text[i] != '.' {
			return "", fmt.Errorf("%q: only letters, digits, '-', '_', '.' and '*'", clipName(source))
		}
	}
	if strings.HasPrefix(text, ".") || strings.Contains(text, "..") || strings.HasSuffix(text, ".") || text == "" {
		return "", fmt.Errorf("%q: two dots without anything between", clipName(source))
	}
	return text, nil
}

func clipName(s string) string { return s[:min(len(s), 2*MaxNameLen)] }

// String is the name as it was written.
func (n Name) String() string { return n.source }

// Key is the same for names that match the same, "" for the zero value.
func (n Name) Key() string {
	switch n.kind {
	case nameAll:
		return "*"
	case nameBelow:
		return "**." + n.text
	}
	return n.text
}

// Exact is the only name that matches, in lower case and without a final dot, if there
// is one.
func (n Name) Exact() (string, bool) { return n.text, n.kind == nameExact }

// Match reports whether a name is n or one of n. It does not allocate.
func (n Name) Match(name string) bool {
	if n.kind == nameAll {
		return true
	}
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > MaxNameLen || name[0] == '.' || name[len(name)-1] == '.' {
		return false // no name, or one with an empty label
	}
	switch n.kind {
	case nameExact, namePattern:
		return matchStars(n.text, name) && !strings.Contains(name, "..")
	case nameBelow:
		for i := 0; i < len(name); i++ {
			if name[i] != '.' {
				if !isNameByte(name[i]) {
					return false
				}
				continue
			}
			if name[i-1] == '.' {
				return false
			}
			if matchStars(n.text, name[i+1:]) && !strings.Contains(name, "..") {
				return true
			}
		}
	}
	return false
}

// matchStars compares with a pattern in lower case. A star takes as little as it can, and
// where the rest does not follow, one byte more: what is before the last star is settled
// then, so that the time is at most that of len(pattern) times len(name).
func matchStars(pattern, name string) bool {
	p, i := 0, 0
	star, took := -1, 0
	for i < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, took = p, i
			p++
		case p < len(pattern) && pattern[p] == lowerByte(name[i]):
			p++
			i++
		case star >= 0 && isNameByte(name[took]):
			took++
			p, i = star+1, took
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// IsName reports whether a name holds nothing but what a host's name does: letters,
// digits, '-' and '_', with dots between. Of others a wildcard says nothing.
func IsName(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > MaxNameLen {
		return false
	}
	before := byte('.')
	for i := range len(name) {
		c := name[i]
		if !isNameByte(c) && (c != '.' || before == '.') {
			return false
		}
		before = c
	}
	return before != '.'
}

func isNameByte(c byte) bool {
	c = lowerByte(c)
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
