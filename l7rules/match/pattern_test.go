package match

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

var patterns = []string{
	``, `/public`, `/public.*`, `/public([/?].*)?`, `GET`, `GET|HEAD`, `GET|GETX|`, `^/a$`, `^(/a|/b)$`, `\A/a\z`, `(?m)^/a$`, `^/a|/b$`,
	`(?i)get`, `(?s)/a.*`, `(?s).*`, `.*`, `.+`, `/a.*b`, `[abc]`, `[^a]`, `[0-9]{2}`, `/v[12]/x?`, `a{0}`, `(a|b)(c|d)`, `()`, `[^\x00-\x{10FFFF}]`,
	"\uFFFD", "a\uFFFD.*", `é`, `[é-ê]`, `/a\.b`, `api\.example\.com(:[0-9]+)?`, `(?i:a).*`, `/a(?:.*)`, `/(.*)`, `\bword\b`, `$^`, `(?U)/a.*`, `/\Qa.b\E`,
}

var values = []string{
	``, `/`, `/public`, `/public/`, `/public?q=1`, `/publicadmin`, `/x/public`, `GET`, `get`, `GETX`, `HEAD`, `/a`, "/a\n", "\n/a", "/a\n/b", `/b`, `a`, `b`, `c`,
	`ac`, `bd`, `12`, `/v1/`, `/v2/x`, "\xff", "a\xffb", "\xc3", `é`, `ê`, `/a.b`, `/aXb`, `api.example.com`, `api.example.com:8080`, `evil.com`, `Ab`, `word`, "\n", "/a\xff\n",
}

// The oracle is regexp itself, anchored.
func TestMatchAgreesWithRegexp(t *testing.T) {
	for _, pattern := range patterns {
		p, err := Compile(pattern)
		if err != nil {
			t.Errorf("Compile(%q): %v", pattern, err)
			continue
		}
		oracle := regexp.MustCompile(`\A(?:` + pattern + `)\z`)
		for _, v := range values {
			if got, want := p.Match([]byte(v)), oracle.MatchString(v); got != want {
				t.Errorf("%q on %q: %v, regexp says %v", pattern, v, got, want)
			}
		}
	}
}

func TestKinds(t *testing.T) {
	for pattern, want := range map[string]kind{
		`/public`: kindLiterals, `GET|HEAD`: kindLiterals, `^/a$`: kindLiterals, `/public.*`: kindPrefix, `.*`: kindPrefix, `^/a.*$`: kindPrefix,
		`(?i)get`: kindRegexp, `(?s)/a.*`: kindRegexp, `/public([/?].*)?`: kindRegexp, `^/a|/b$`: kindRegexp,
	} {
		p, err := Compile(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if p.kind != want {
			t.Errorf("%q: kind %d, want %d", pattern, p.kind, want)
		}
	}
	for pattern, want := range map[string]bool{`/public([/?].*)?`: true, `(?i)get`: true, `[0-9]{2}.*x`: true, `\bword\b`: false, `.*a.{9}`: false} {
		p, err := Compile(pattern)
		if err != nil {
			t.Fatal(err)
		}
		p.once.Do(p.prepare)
		if got := p.dfa != nil; got != want {
			t.Errorf("%q: has an automaton %v, want %v", pattern, got, want)
		}
	}
	var zero Pattern
	if zero.Match(nil) || zero.Match([]byte("x")) {
		t.Error("the zero pattern matches")
	}
}

func TestPrefix(t *testing.T) {
	for pattern, want := range map[string]string{`/public.*`: `/public`, `/a|/b`: `/`, `GET`: `GET`, `.*`: ``, `/x(y|z.*)`: `/x`} {
		p, err := Compile(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Prefix(); got != want {
			t.Errorf("%q: prefix %q, want %q", pattern, got, want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, pattern := range []string{`*`, `(`, `)`, `a)(b`, `[`, `a{1001}`, `\`, "\xff", `(?<n`, `(?=a)`, `\1`, `a**`} {
		if _, err := Compile(pattern); err == nil {
			t.Errorf("Compile(%q): no error", pattern)
		}
	}
	for _, pattern := range []string{strings.Repeat("a", MaxPatternLen+1), `((a{100}){100}){2}`, `(a{999}b{999}){10}`, strings.Repeat(`[a-z]{1000}`, 300), strings.Repeat("(", 900) + strings.Repeat("){2}", 900)} {
		if _, err := Compile(pattern); !errors.Is(err, ErrTooLarge) {
			// regexp/syntax has bounds of its own; either is an error.
			if err == nil {
				t.Errorf("Compile(%.20q...): no error", pattern)
			}
		}
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	for _, pattern := range []string{`/public`, `/public.*`, `/public([/?].*)?`, `GET|HEAD`} {
		p, err := Compile(pattern)
		if err != nil {
			t.Fatal(err)
		}
		v := []byte("/public/index.html?q=1")
		if n := testing.AllocsPerRun(1000, func() { p.Match(v) }); n != 0 {
			t.Errorf("%q: %v allocations", pattern, n)
		}
	}
}

func FuzzMatch(f *testing.F) {
	for i, pattern := range patterns {
		f.Add(pattern, values[i%len(values)])
	}
	f.Fuzz(func(t *testing.T, pattern, value string) {
		p, err := Compile(pattern)
		if err != nil {
			return
		}
		oracle, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
		if err != nil && strings.Contains(pattern, `\Q`) { // a \Q may go on to the end
			oracle, err = regexp.Compile(`\A(?:` + pattern + `\E)\z`)
		}
		if err != nil {
			t.Fatalf("Compile(%q) accepted, regexp says %v", pattern, err)
		}
		if got, want := p.Match([]byte(value)), oracle.MatchString(value); got != want {
			t.Fatalf("%q on %q: %v, regexp says %v", pattern, value, got, want)
		}
		if p.Match([]byte(value)) && !strings.HasPrefix(value, p.Prefix()) {
			t.Fatalf("%q matches %q, which does not begin with %q", pattern, value, p.Prefix())
		}
	})
}
