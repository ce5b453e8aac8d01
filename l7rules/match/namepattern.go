package match

import (
	"fmt"
	"strings"
)

// Pattern returns an expression that matches what n does, for a Set or for Classes. It does
// not bound the length: the caller refuses what is longer than MaxNameLen.
func (n Name) Pattern() (*Pattern, error) {
	const (
		letter = `[-0-9A-Z_a-z]`
		label  = letter + `+`
	)
	var expr strings.Builder
	switch n.kind {
	case nameNone:
		return &Pattern{}, nil
	case nameAll:
		return Compile(`(?s).*`)
	case nameBelow:
		expr.WriteString(`(?:` + label + `\.)+`)
	}
	for i, part := range strings.Split(n.text, ".") {
		if i > 0 {
			expr.WriteString(`\.`)
		}
		if part == "*" { // no label is empty
			expr.WriteString(label)
			continue
		}
		for j := range len(part) {
			switch c := part[j]; {
			case c == '*':
				expr.WriteString(letter + `*`)
			case 'a' <= c && c <= 'z':
				expr.Write([]byte{'[', c, c - 'a' + 'A', ']'})
			default:
				expr.WriteByte(c)
			}
		}
	}
	expr.WriteString(`\.?`)
	p, err := Compile(expr.String())
	if err != nil {
		return nil, fmt.Errorf("make a pattern of name %q: %w", clipName(n.source), err)
	}
	return p, nil
}
