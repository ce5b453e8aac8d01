// Package match holds what request rules compare bytes with: patterns that were
// regular expressions in a policy file. It imports nothing of this module.
package match

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"
)

// Limits of one pattern. They bound what a policy file can make us compile.
const (
	// MaxPatternLen is the longest pattern, in bytes.
	MaxPatternLen = 4096
	// MaxPatternCost is the largest program a pattern may become, in
	// instructions: a{1000} is a thousand of them.
	MaxPatternCost = 10_000

	maxLiterals = 16 // alternatives compared one by one instead of by regexp
)

// ErrTooLarge is what a pattern beyond the limits fails with.
var ErrTooLarge = errors.New("regular expression too large")

type kind uint8

const (
	kindNone     kind = iota // matches nothing
	kindLiterals             // one of a few strings
	kindPrefix               // a string, then anything but a newline: /public.*
	kindRegexp
)

// Pattern is a compiled RE2 expression that is matched against the whole of a
// value, case-sensitively unless it says otherwise. Where the expression is one of a
// few fixed strings or a fixed prefix these are compared; else a small automaton runs, or
// regexp where there is none. The zero value matches nothing.
type Pattern struct {
	source   string
	kind     kind
	literals [][]byte
	prefix   []byte // kindPrefix, and what a kindRegexp must begin with
	cost     int

	// For kindRegexp, made when they are first asked: where patterns are many, a Set
	// decides and few ever are.
	once     sync.Once
	anchored string
	dfa      *dfa // what ASCII values are decided by; may be nil
	re       *regexp.Regexp
}

// Compile reads an RE2 expression. An empty one matches the empty string only.
func Compile(source string) (*Pattern, error) {
	if len(source) > MaxPatternLen {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(source), MaxPatternLen)
	}
	tree, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		var se *syntax.Error
		if errors.As(err, &se) {
			return nil, fmt.Errorf("%v: %q", se.Code, se.Expr)
		}
		return nil, err
	}
	p := &Pattern{source: source, cost: cost(tree)}
	if p.cost > MaxPatternCost {
		return nil, fmt.Errorf("%w: %d instructions, at most %d", ErrTooLarge, p.cost, MaxPatternCost)
	}
	// The source was parsed alone, so a stray parenthesis in it cannot close the
	// group below; but a \Q that nothing ends would swallow the group's end.
	body := source
	if strings.Contains(source, `\Q`) {
		body = tree.String()
	}
	tree = unanchor(tree.Simplify())
	if all, ok := enumerate(tree); ok {
		p.kind = kindLiterals
		for _, s := range all {
			p.literals = append(p.literals, []byte(s))
		}
		return p, nil
	}
	prefix, rest := cutLiteral(tree)
	p.prefix = []byte(prefix)
	if rest != nil && rest.Op == syntax.OpStar && rest.Sub[0].Op == syntax.OpAnyCharNotNL {
		p.kind = kindPrefix
		return p, nil
	}
	p.anchored = `\A(?:` + body + `)\z`
	if _, err := syntax.Parse(p.anchored, syntax.Perl); err != nil {
		return nil, err
	}
	p.kind = kindRegexp
	return p, nil
}

// prepare makes what Match runs.
func (p *Pattern) prepare() {
	// What parses, compiles.
	p.re = regexp.MustCompile(p.anchored)
	p.dfa = newDFA(p.tree())
}

// String is the expression as it was written.
func (p *Pattern) String() string { return p.source }

// tree parses the expression again, without what anchors it: few need it, and it is
// larger than the rest.
func (p *Pattern) tree() *syntax.Regexp {
	tree, err := syntax.Parse(p.source, syntax.Perl)
	if err != nil || p.kind == kindNone {
		return &syntax.Regexp{Op: syntax.OpNoMatch} // the zero Pattern: others were parsed before
	}
	return unanchor(tree.Simplify())
}

// Cost is the size of the program, in instructions of regexp/syntax.
func (p *Pattern) Cost() int { return p.cost }

// Literals returns the only strings that match, if they are few and known.
func (p *Pattern) Literals() ([]string, bool) {
	if p.kind != kindLiterals {
		return nil, false
	}
	all := make([]string, len(p.literals))
	for i, l := range p.literals {
		all[i] = string(l)
	}
	return all, true
}

// Prefix is what every match begins with.
func (p *Pattern) Prefix() string {
	if p.kind == kindLiterals && len(p.literals) > 0 {
		prefix := p.literals[0]
		for _, l := range p.literals[1:] {
			for !bytes.HasPrefix(l, prefix) {
				prefix = prefix[:len(prefix)-1]
			}
		}
		return string(prefix)
	}
	return string(p.prefix)
}

// Match reports whether the whole of value matches. It does not allocate, the first time
// apart.
func (p *Pattern) Match(value []byte) bool {
	switch p.kind {
	case kindLiterals:
		for _, l := range p.literals {
			if bytes.Equal(l, value) {
				return true
			}
		}
		return false
	case kindPrefix:
		return bytes.HasPrefix(value, p.prefix) && bytes.IndexByte(value[len(p.prefix):], '\n') < 0
	case kindRegexp:
		if !bytes.HasPrefix(value, p.prefix) {
			return false
		}
		p.once.Do(p.prepare)
		if p.dfa != nil {
			if matched, ok := p.dfa.match(value); ok {
				return matched
			}
		}
		return p.re.Match(value)
	}
	return false
}

// cost estimates the instructions a tree compiles to, before repetitions are
// unrolled. It saturates beyond the limit.
func cost(re *syntax.Regexp) int {
	sum := 1
	for _, sub := range re.Sub {
		sum = min(sum+cost(sub), MaxPatternCost+1)
	}
	switch re.Op {
	case syntax.OpLiteral:
		sum += len(re.Rune)
	case syntax.OpCharClass:
		sum += len(re.Rune) / 2
	case syntax.OpRepeat:
		n := max(re.Min, re.Max, 1)
		if re.Max < 0 {
			n++
		}
		sum *= n
	}
	return min(sum, MaxPatternCost+1)
}

// unanchor removes a leading ^ or \A and a trailing $ or \z: the whole value is
// matched anyway. Within the tree they stay.
func unanchor(re *syntax.Regexp) *syntax.Regexp {
	if re.Op != syntax.OpConcat {
		return re
	}
	sub := re.Sub
	for len(sub) > 0 && sub[0].Op == syntax.OpBeginText {
		sub = sub[1:]
	}
	for len(sub) > 0 && sub[len(sub)-1].Op == syntax.OpEndText {
		sub = sub[:len(sub)-1]
	}
	if len(sub) == len(re.Sub) {
		return re
	}
	switch len(sub) {
	case 0:
		return &syntax.Regexp{Op: syntax.OpEmptyMatch}
	case 1:
		return sub[0]
	}
	return &syntax.Regexp{Op: syntax.OpConcat, Flags: re.Flags, Sub: sub}
}

// literal is the string of an OpLiteral that stands for its own bytes alone.
// U+FFFD also matches any byte that is no UTF-8, so it does not.
func literal(re *syntax.Regexp) (string, bool) {
	if re.Op != syntax.OpLiteral || re.Flags&syntax.FoldCase != 0 || slices.Contains(re.Rune, '\uFFFD') {
		return "", false
	}
	return string(re.Rune), true
}

// cutLiteral splits the leading fixed string off a tree. The rest is nil where
// nothing, or nothing that is one tree, remains.
func cutLiteral(re *syntax.Regexp) (string, *syntax.Regexp) {
	if re.Op != syntax.OpConcat {
		if s, ok := literal(re); ok {
			return s, nil
		}
		return "", re
	}
	s, ok := literal(re.Sub[0])
	switch {
	case !ok:
		return "", nil
	case len(re.Sub) == 2:
		return s, re.Sub[1]
	}
	return s, nil
}

// enumerate lists the strings that a tree matches, if they are at most
// maxLiterals.
func enumerate(re *syntax.Regexp) ([]string, bool) {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return []string{""}, true
	case syntax.OpNoMatch:
		return nil, true
	case syntax.OpLiteral:
		s, ok := literal(re)
		return []string{s}, ok
	case syntax.OpCapture:
		return enumerate(re.Sub[0])
	case syntax.OpQuest:
		all, ok := enumerate(re.Sub[0])
		return union(all, []string{""}), ok && len(all) < maxLiterals
	case syntax.OpCharClass:
		var all []string
		for i := 0; i+1 < len(re.Rune); i += 2 {
			lo, hi := re.Rune[i], re.Rune[i+1]
			if int(hi-lo) >= maxLiterals-len(all) || lo <= '\uFFFD' && '\uFFFD' <= hi {
				return nil, false
			}
			for r := lo; r <= hi; r++ {
				all = append(all, string(r))
			}
		}
		return all, true
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			some, ok := enumerate(sub)
			if all = union(all, some); !ok || len(all) > maxLiterals {
				return nil, false
			}
		}
		return all, true
	case syntax.OpConcat:
		all := []string{""}
		for _, sub := range re.Sub {
			tails, ok := enumerate(sub)
			if !ok || len(all)*len(tails) > maxLiterals {
				return nil, false
			}
			var next []string
			for _, head := range all {
				for _, tail := range tails {
					next = union(next, []string{head + tail})
				}
			}
			all = next
		}
		return all, true
	}
	return nil, false
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

// Quote writes an expression that matches exactly s.
func Quote(s string) string { return regexp.QuoteMeta(s) }

// IsPlain reports whether an expression contains no operator, so that it reads as
// the string it matches.
func IsPlain(source string) bool { return !strings.ContainsAny(source, `\.+*?()|[]{}^$`) }
