package match

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func compileAll(t testing.TB, sources ...string) []*Pattern {
	t.Helper()
	var all []*Pattern
	for _, s := range sources {
		p, err := Compile(s)
		if err != nil {
			t.Fatalf("Compile(%q): %v", s, err)
		}
		all = append(all, p)
	}
	return all
}

func TestClasses(t *testing.T) {
	for _, c := range []struct {
		domain   string
		patterns []string
		want     string
	}{
		{`.*`, nil, `[]""`},
		{`a+`, []string{`aa|b`}, `[]"a" [0]"aa"`},
		{`/.*`, []string{`/public.*`, `/public([/?].*)?`, `/x`}, `[]"/" [2]"/x" [0 1]"/public" [0]"/publica"`},
		{``, []string{`.*`, `a`}, `[0]""`},
		{`[^\x00-\x{10FFFF}]`, []string{`a`}, ``},
		{`[a-z]*`, []string{`.*a.*`, `.*b.*`}, `[]"" [0]"a" [1]"b" [0 1]"ab"`},
		{`(?s).*`, []string{`é`, `[^a]`, `..`}, `[]"" [1]"b" [2]"aa" [0 1]"é"`},
		{`(?s)[^a-zA-Z0-9_]*`, []string{`.`, `..`}, `[]"" [0]"/" [1]"//"`},
		{`[ab ]*`, []string{`.*\ba\b.*`, `.*b`}, `[]"" [0]"a" [1]"b" [0 1]"a b"`},
	} {
		classes, err := Classes(compileAll(t, c.domain)[0], compileAll(t, c.patterns...))
		if err != nil {
			t.Errorf("%q in %q: %v", c.patterns, c.domain, err)
			continue
		}
		var got []string
		for _, class := range classes {
			got = append(got, fmt.Sprintf("%v%q", class.Patterns, class.Witness))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q in %q: %s, want %s", c.patterns, c.domain, strings.Join(got, " "), c.want)
		}
	}
	classes, err := Classes(nil, append(compileAll(t, `a`), nil, &Pattern{}))
	if err != nil || len(classes) != 2 {
		t.Errorf("with patterns that match nothing: %v, %v", classes, err)
	}
}

// Every short value is in a class, no class is more than its witness shows, and no value
// is shorter than the witness of its class.
func TestClassesAreExact(t *testing.T) {
	alphabet := []string{"a", "b", "/", "\n", "-", "é", "\xc3", "\xa9", "\xe2\x82", "€", "\xf0\x9f\x98", "\xff", "K", "\u212a", "\ufffd", "\uffff"}
	var values []string
	for _, x := range append(alphabet, "") {
		for _, y := range append(alphabet, "") {
			for _, z := range append(alphabet, "") {
				values = append(values, x+y+z)
			}
		}
	}
	pool := append([]string{`(?i)k+`, `[^/]+`, `..`, `.{3}`, `[^é]*`, `é.*`, `.*€`, `(?s).+b`, `\x{FFFD}`, `\x{FFFD}.*`, `\x{FFFD}{2}b?`, `a\b.*`, `.*\Ba`, `(?m)^a$.*`,
		`(?ms).*^b.*`, `[\x{20A0}-\x{FFFF}].?`, `[^\x{80}-\x{10FFFF}]*`, `(a|é)*`, `(?:a*)*b`, `a+`, `(ab)+`, `(a|bé)+b?`, `(a?b?)+`}, patterns...)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 80 {
		var sources []string
		for range 1 + rng.IntN(4) {
			sources = append(sources, pool[rng.IntN(len(pool))])
		}
		var oracles []*regexp.Regexp
		for _, s := range sources {
			oracles = append(oracles, regexp.MustCompile(`\A(?:`+s+`)\z`))
		}
		domain := `(?s).*`
		if rng.IntN(3) == 0 {
			domain = pool[rng.IntN(len(pool))]
		}
		inDomain := regexp.MustCompile(`\A(?:` + domain + `)\z`)
		classes, err := Classes(compileAll(t, domain)[0], compileAll(t, sources...))
		if err != nil {
			t.Errorf("%q: %v", sources, err)
			continue
		}
		classOf := func(v string) []int {
			class := []int{}
			for i, re := range oracles {
				if re.MatchString(v) {
					class = append(class, i)
				}
			}
			return class
		}
		witness := map[string]int{}
		for _, c := range classes {
			key := fmt.Sprint(c.Patterns)
			if _, ok := witness[key]; ok {
				t.Errorf("%q: class %s twice", sources, key)
			}
			witness[key] = len(c.Witness)
			if v := string(c.Witness); !slices.Equal(classOf(v), c.Patterns) || !inDomain.MatchString(v) {
				t.Errorf("%q in %q: class %v has witness %q, which is in %v", sources, domain, c.Patterns, v, classOf(v))
			}
		}
		for _, v := range values {
			if !inDomain.MatchString(v) {
				continue
			}
			if n, ok := witness[fmt.Sprint(classOf(v))]; !ok || n > len(v) {
				t.Errorf("%q in %q: %q is in class %v: known %v, witness of %d bytes", sources, domain, v, classOf(v), ok, n)
				break
			}
		}
	}
}

// Whatever is asked, the answer comes soon; it names the pattern that is too much.
func TestClassesTooLarge(t *testing.T) {
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf(`.*word%d.*`, i))
	}
	for _, c := range []struct {
		domain   string
		patterns []string
		blame    int
	}{
		{`.*`, []string{`/a`, `.*a.{40}`, `/b.*`}, 1},
		{`.*`, []string{`/a`, `/b`, `((a{0,30}){0,10}b?){0,3}.*a[^b]{0,60}c`}, 2},
		{`.*a.{40}`, []string{`/a`}, -1},
		{`.*`, many, 0},
		{`.*`, []string{`()`, `(/a)?`, `/a`, `.*a.{40}`, ``, `/a`}, 3},
		{`.*`, []string{`/`, strings.Repeat(`(.*a|.*b.{3})`, 200)}, 1},
	} {
		// A part of the bounds: the race detector is slow.
		limit := budget{maxClassStates / 32, maxClassWork / 32, maxClassKept / 32}
		start := time.Now()
		_, err := classes(compileAll(t, c.domain)[0], compileAll(t, c.patterns...), limit)
		t.Logf("%.40q: %v", c.patterns, time.Since(start))
		var tooLarge *TooLargeError
		if !errors.As(err, &tooLarge) || !errors.Is(err, ErrTooLarge) || err.Error() == "" {
			t.Errorf("%.40q: error %v", c.patterns, err)
			continue
		}
		if tooLarge.Pattern != c.blame {
			t.Errorf("%.40q: pattern %d is to blame, want %d", c.patterns, tooLarge.Pattern, c.blame)
		}
	}
	if _, err := Classes(nil, compileAll(t, `.*a.{20}`)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("with the true bounds: %v", err)
	}
}
