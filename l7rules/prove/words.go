package prove

import (
	"errors"
	"fmt"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/match"
)

// domain is the set of values that a field of a request can have once the proxy has
// brought it to its canonical form: what within matches and except does not.
type domain struct {
	name   string
	within *match.Pattern
	except *match.Pattern
}

func newDomain(name, within, except string) *domain {
	d := &domain{name: name}
	for _, p := range []struct {
		to   **match.Pattern
		text string
	}{{&d.within, within}, {&d.except, except}} {
		var err error
		if *p.to, err = match.Compile(p.text); err != nil {
			panic(err) // they are constants
		}
	}
	return d
}

const nothing = `[^\x00-\x{10FFFF}]`

// methods are the tokens of RFC 9110 section 5.6.2, but for CONNECT, which the proxy
// always refuses.
func methods() *domain {
	return newDomain("method", "[!#$%&'*+.^_`|~0-9A-Za-z-]+", "CONNECT")
}

// hosts are Host and :authority in lower case: nothing, a name or an address in
// brackets, and a port.
func hosts() *domain {
	return newDomain("host", `(?:(?:[a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::[0-9]{0,5})?)?`, nothing)
}

// paths are the canonical request targets: what proxy/httpproxy makes of the targets
// that it does not refuse. asterisk adds "*", which OPTIONS may name.
func paths(asterisk bool) *domain {
	const (
		// Percent-encoding, in upper case, of what is not unreserved (RFC 3986 section 2.3),
		// but for the semicolon: in a path no control character, slash or backslash, nor
		// bytes that are never in UTF-8.
		escape = `%2[0-9AB]|%2C|%25|%3[AC-F]|%40|%5[BDE]|%60|%7[BCD]|%[89AB][0-9A-F]|%C[2-9A-F]|%[DE][0-9A-F]|%F[0-4]`
		// Bytes that stand for themselves, but for the dot, the semicolon and the slash.
		plain = `[!$&'()*+,0-9:<=>@A-Z\[\]^_` + "`" + `a-z{|}~"-]`
		char  = `(?:[.;]|%3B|` + plain + `|` + escape + `)`
		// No segment is empty but the last, none is "." or "..", and none is one of these
		// with a parameter.
		segment = `(?:(?:;|%3B|` + plain + `|` + escape + `)` + char + `*|\.(?:` + plain + `|` + escape + `)` + char + `*|\.\.(?:\.|` + plain + `|` + escape + `)` + char + `*)`
		query   = `(?:[!$&'()*+,./0-9:;<=>?@A-Z\[\\\]^_` + "`" + `a-z{|}~"-]|%[01][0-9A-F]|%2[0-9A-CF]|%3[A-F]|%40|%5[B-E]|%60|%7[BCDF]|%[89A-F][0-9A-F])`
		target  = `/(?:` + segment + `/)*` + segment + `?(?:\?` + query + `*)?`

		// What means something when it is decoded once more, and overlong UTF-8.
		except = `[!->@-~]*(?:%25(?:2[eEfF5]|5[cC]|00)|%E0%[89][0-9A-F]|%F0%8[0-9A-F])[!-~]*`
	)
	if asterisk {
		return newDomain("path or *", target+`|\*`, except)
	}
	return newDomain("path", target, except)
}

// hostNames are names of hosts in lower case: labels of letters, digits, '-' and '_', with
// dots between.
func hostNames() *domain {
	return newDomain("name", `[a-z0-9_-]+(?:[.][a-z0-9_-]+)*`, nothing)
}

// word stands for all values of a domain that exactly these patterns match.
type word struct {
	patterns set
	value    string // a shortest one
}

// maxWords bounds the classes of one field.
const maxWords = 1 << 13

// tooLarge says which pattern makes an automaton large.
type tooLarge struct {
	pattern int // -1 where none is to blame
	reason  string
}

// unknown is what it means for an answer. what names the patterns.
func (e *tooLarge) unknown(what string, patterns []*match.Pattern, places []l7rules.Origin) *Unknown {
	if e.pattern < 0 || e.pattern >= len(patterns) {
		return &Unknown{Reason: "the " + what + ": " + e.reason}
	}
	return &Unknown{fmt.Sprintf("the %s: %s, mostly by %s", what, e.reason, quote(patterns[e.pattern].String())), places[e.pattern]}
}

func (e *tooLarge) Error() string { return e.reason }

func isTooLarge(err error, e **tooLarge) bool {
	t, ok := err.(*tooLarge)
	*e = t
	return ok
}

// words finds every set of patterns that some value of the domain matches at once, the
// empty set included, with a shortest value each. What the domain excepts is one more
// pattern: classes with it are none.
func words(d *domain, patterns []*match.Pattern) ([]word, error) {
	all := append([]*match.Pattern{d.except}, patterns...)
	classes, err := match.Classes(d.within, all)
	if large, ok := errors.AsType[*match.TooLargeError](err); ok {
		return nil, &tooLarge{large.Pattern - 1, "their automaton is too large"}
	}
	if err != nil {
		return nil, fmt.Errorf("find classes of patterns: %w", err)
	}
	var list []word
	for _, c := range classes {
		if len(c.Patterns) > 0 && c.Patterns[0] == 0 {
			continue
		}
		w := word{newSet(max(len(patterns), 1)), string(c.Witness)}
		for _, p := range c.Patterns {
			w.patterns.add(p - 1)
		}
		if list = append(list, w); len(list) > maxWords {
			return nil, &tooLarge{len(patterns) - 1, fmt.Sprintf("they fall into more than %d classes", maxWords)}
		}
	}
	return list, nil
}
