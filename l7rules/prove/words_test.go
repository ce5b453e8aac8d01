package prove

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/l7rules/match"
	"github.com/weir-proxy/weir/proxy/httpproxy"
)

// canonical is what the proxy makes of a target, "" where it refuses it.
func canonical(method, target string) string {
	r, err := httpproxy.Canonical([]byte(method + " " + target + " HTTP/1.1\r\nHost: a\r\n\r\n"))
	if err != nil {
		return ""
	}
	return string(r.Path)
}

func accepts(d *domain, s string) bool {
	return d.within.Match([]byte(s)) && !d.except.Match([]byte(s))
}

// TestPathsAreWhatTheProxyMakes takes targets apart that differ in what the proxy cares
// about: one is canonical if and only if the proxy leaves it as it is.
func TestPathsAreWhatTheProxyMakes(t *testing.T) {
	pieces := []string{"/", "/", ".", "..", ";", "%3B", "%3b", "a", "2", "5", "e", "E", "c", "0", "f", "%25", "%2", "%", "%2E", "%2F", "%5C", "\\", "?", "#",
		"%20", "%00", "%7F", "%C0", "%C3", "%E0", "%9F", "%A0", "%F0", "%8F", "%90", "%F4", "%F5", "%41", "%7E", "~", "*", "<", "\"", "|", " ", "&", "=", "%0A"}
	g := rand.New(rand.NewPCG(1, 2))
	plain, withAsterisk := paths(false), paths(true)
	counts := map[bool]int{}
	check := func(s string) {
		t.Helper()
		want := s != "" && canonical("GET", s) == s
		counts[want]++
		if got := accepts(plain, s); got != want {
			t.Errorf("%q: in the domain %v, the proxy makes %q of it", s, got, canonical("GET", s))
		}
		if got, want := accepts(withAsterisk, s), s != "" && canonical("OPTIONS", s) == s; got != want {
			t.Errorf("OPTIONS %q: in the domain %v, want %v", s, got, want)
		}
	}
	check("*")
	for range 120_000 / slow {
		s := ""
		if g.IntN(20) > 0 {
			s = "/"
		}
		for range g.IntN(7) {
			s += pieces[g.IntN(len(pieces))]
		}
		check(s)
		if c := canonical("GET", s); c != "" {
			check(c)
		}
		if t.Failed() {
			return
		}
	}
	if counts[true] < 5_000/slow || counts[false] < 5_000/slow {
		t.Errorf("too few of one kind: %v", counts)
	}
}

func TestMethodsAndHosts(t *testing.T) {
	host := func(method, host string) (string, bool) {
		r, err := httpproxy.Canonical([]byte(method + " / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"))
		if err != nil {
			return "", false
		}
		return string(r.Host), string(r.Method) == method
	}
	d := methods()
	for _, m := range []string{"GET", "get", "C", "CONNEC", "CONNECT", "CONNECTX", "CONNECTCONNECT", "a b", "", "!#$%&'*+-.^_`|~", "G(", "G/", "PRI"} {
		if _, want := host(m, "a"); accepts(d, m) != want {
			t.Errorf("method %q: in the domain %v", m, accepts(d, m))
		}
	}
	d = hosts()
	g := rand.New(rand.NewPCG(3, 4))
	pieces := []string{"a", "z", "A", "0", "9", "-", ".", "_", "~", ":", ":", "[", "]", "[::1]", "%", "g", "/", "@"}
	for range 50_000 / slow {
		h := ""
		for range g.IntN(9) {
			h += pieces[g.IntN(len(pieces))]
		}
		c, ok := host("GET", h)
		if want := ok && c == h; accepts(d, h) != want {
			t.Fatalf("host %q: in the domain %v, the proxy says %q, %v", h, accepts(d, h), c, ok)
		}
	}
}

// TestWordsAreAll compares the classes of patterns with what regexp says of every short
// value: each class that occurs is found, with a value that is in it and as short.
func TestWordsAreAll(t *testing.T) {
	const alphabet = "ab/?-"
	d := newDomain("test", "[ab/?-]*", "[a-z]*//[a-z]*")
	var values []string
	for level := []string{""}; len(level[0]) <= 5; {
		values = append(values, level...)
		var next []string
		for _, s := range level {
			for i := range len(alphabet) {
				next = append(next, s+alphabet[i:i+1])
			}
		}
		level = next
	}
	parts := []string{"a", "b", "/", "[ab]", "a*", "(a|b/)?", ".*", "[^/]*", `\b`, "^", "$", "a{2,3}", "(?i:A)", `\?`, `\Qa-`, "(ab|a)", `\B`, "x", "b+?", ".", "[^a]"}
	g := rand.New(rand.NewPCG(5, 6))
	for range 200 / slow {
		var patterns []*match.Pattern
		for range 1 + g.IntN(4) {
			p := ""
			for range 1 + g.IntN(4) {
				part := parts[g.IntN(len(parts))]
				if strings.Contains(p, `\Q`) {
					break
				}
				p += part
			}
			patterns = append(patterns, compile(t, p))
		}
		found, err := words(d, patterns)
		if err != nil {
			t.Fatal(err)
		}
		var res []*regexp.Regexp
		for _, pattern := range patterns {
			p := pattern.String()
			if strings.Contains(p, `\Q`) {
				p += `\E`
			}
			res = append(res, regexp.MustCompile(`\A(?:`+p+`)\z`))
		}
		signature := func(v string) string {
			s := ""
			for _, re := range res {
				s += fmt.Sprint(re.MatchString(v), " ")
			}
			return s
		}
		shortest := map[string]string{}
		for _, v := range values {
			if !accepts(d, v) {
				continue
			}
			if s, ok := shortest[signature(v)]; !ok || len(v) < len(s) {
				shortest[signature(v)] = v
			}
		}
		got := map[string]bool{}
		for _, w := range found {
			s := ""
			for i := range patterns {
				s += fmt.Sprint(w.patterns.has(i), " ")
			}
			if s != signature(w.value) || got[s] {
				t.Fatalf("%q: class %s with value %q, which is in %s", patterns, s, w.value, signature(w.value))
			}
			got[s] = true
			if v, ok := shortest[s]; ok && len(v) != len(w.value) {
				t.Fatalf("%q: class %s: %q is not as short as %q", patterns, s, w.value, v)
			}
		}
		for s, v := range shortest {
			if !got[s] {
				t.Fatalf("%q: class %s of %q is missing in %v", patterns, s, v, found)
			}
		}
	}
}

func TestWordsAreBounded(t *testing.T) {
	_, err := words(paths(false), []*match.Pattern{compile(t, "/a"), compile(t, "/.*a.{25}"), compile(t, "/b")})
	e, ok := err.(*tooLarge)
	if !ok || e.pattern != 1 {
		t.Errorf("%v", err)
	}
	var many []*match.Pattern
	for i := range 14 { // 16,384 classes
		many = append(many, compile(t, "/.*"+string(rune('a'+i))+".*"))
	}
	if slow == 1 {
		if _, err := words(paths(false), many); err == nil {
			t.Error("more than maxWords classes: no error")
		}
	}
	list, err := words(methods(), nil)
	if err != nil || len(list) != 1 || len(list[0].value) != 1 || !slices.Equal(list[0].patterns, newSet(1)) {
		t.Errorf("%v, %v", list, err)
	}
}

func compile(t *testing.T, s string) *match.Pattern {
	t.Helper()
	p, err := match.Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
