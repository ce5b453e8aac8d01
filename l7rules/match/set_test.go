package match

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"
	"time"
)

var pairs = flag.Int("pairs", 10_000, "random pairs of a pattern and a value to compare with regexp")

// anchored is what a pattern means, nil where it is none.
func anchored(source string) *regexp.Regexp {
	re, err := regexp.Compile(`\A(?:` + source + `)\z`)
	if err != nil && strings.Contains(source, `\Q`) { // a \Q may go on to the end
		re, err = regexp.Compile(`\A(?:` + source + `\E)\z`)
	}
	if err != nil {
		return nil
	}
	return re
}

// checked is a set that is compared with regexp, with its patterns, and with its image.
type checked struct {
	*Set
	oracles  []*regexp.Regexp
	image    []byte
	complete bool
}

func newChecked(patterns []*Pattern, oracles []*regexp.Regexp) checked {
	c := checked{Set: NewSet(patterns), oracles: oracles}
	c.image, c.complete = c.Image()
	return c
}

func (s checked) check(t *testing.T, value string) {
	t.Helper()
	var want []uint32
	for i, re := range s.oracles {
		matched := re.MatchString(value)
		if matched {
			want = append(want, uint32(i))
		}
		if s.patterns[i].Match([]byte(value)) != matched {
			t.Errorf("%q on %q: regexp says %v", s.patterns[i], value, matched)
		}
	}
	got := s.Append(nil, []byte(value))
	if !slices.Equal(got, want) {
		t.Fatalf("%q on %q: %v, regexp says %v", s.patterns, value, got, want)
	}
	walked, known := walkImage(s.image, []byte(value))
	if !s.complete {
		want = slices.DeleteFunc(want, func(i uint32) bool { return slices.Contains(s.single, i) })
	}
	if known && !slices.Equal(walked, want) {
		t.Fatalf("%q on %q: the image says %v, regexp %v", s.patterns, value, walked, want)
	}
	if !known && !strings.Contains(value, "\n") {
		t.Fatalf("%q on %q: the image does not know", s.patterns, value)
	}
}

func TestSetAgreesWithRegexp(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 100 {
		var some []*Pattern
		var oracles []*regexp.Regexp
		for _, source := range patterns {
			if round == 0 || rng.IntN(3) == 0 {
				some, oracles = append(some, compileAll(t, source)[0]), append(oracles, anchored(source))
			}
		}
		s := newChecked(some, oracles)
		for _, v := range values {
			s.check(t, v)
		}
	}
}

// A million pairs: go test -run TestSetRandomPairs -pairs 1000000
func TestSetRandomPairs(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, uint64(*pairs)))
	const perSet, perPattern = 8, 25
	for done := 0; done < *pairs; done += perSet * perPattern {
		var some []*Pattern
		var oracles []*regexp.Regexp
		var near []string
		for len(some) < perSet {
			source := randomPattern(rng, 4)
			p, err := Compile(source)
			if err != nil {
				continue
			}
			some, oracles = append(some, p), append(oracles, anchored(source))
			tree, err := syntax.Parse(source, syntax.Perl)
			if err != nil {
				t.Fatal(err)
			}
			near = append(near, randomMatch(rng, tree.Simplify()), randomMatch(rng, tree.Simplify()))
		}
		s := newChecked(some, oracles)
		for range perPattern {
			s.check(t, mutate(rng, near[rng.IntN(len(near))]))
		}
	}
}

var atoms = []string{"a", "b", "/", "ab", "/a/", "é", "€", "😀", `\x{FFFD}`, ".", "[^/]", "[a-c]", "[^a]", `\d`, `\w`, `[é-€]`, "(?i:k)", "(?i:aß)", "(?s:.)", `\n`, `\pL`, `\x{10FFFF}`, `[^\x00-\x7f]`, "public", "0"}

func randomPattern(rng *rand.Rand, depth int) string {
	if depth == 0 || rng.IntN(5) == 0 {
		return atoms[rng.IntN(len(atoms))]
	}
	sub := func() string { return randomPattern(rng, depth-1) }
	switch rng.IntN(14) {
	case 0:
		return "(" + sub() + "|" + sub() + ")"
	case 1:
		return sub() + "|" + sub()
	case 2:
		return "(" + sub() + ")*"
	case 3:
		return "(?:" + sub() + ")+"
	case 4:
		return "(" + sub() + ")?"
	case 5:
		return "(?:" + sub() + fmt.Sprintf("){%d,%d}", rng.IntN(3), 2+rng.IntN(3))
	case 6:
		return sub() + ".*"
	case 7:
		return ".*" + sub()
	case 8:
		return []string{`^`, `$`, `\b`, `\B`, `(?m)^`, `(?m:$)`, `\A`, `\z`}[rng.IntN(8)] + sub()
	case 9:
		return sub() + "([/?].*)?"
	}
	return sub() + sub()
}

// randomMatch returns a value that a tree matches, where it does not look around.
func randomMatch(rng *rand.Rand, re *syntax.Regexp) string {
	var s string
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCharClass:
		if len(re.Rune) == 0 {
			return ""
		}
		i := rng.IntN(len(re.Rune)/2) * 2
		return string(re.Rune[i] + rng.Int32N(re.Rune[i+1]-re.Rune[i]+1))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return []string{"a", "/", "é", "\xff", "b", "😀"}[rng.IntN(6)]
	case syntax.OpCapture, syntax.OpPlus:
		return randomMatch(rng, re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			s += randomMatch(rng, sub)
		}
	case syntax.OpAlternate:
		return randomMatch(rng, re.Sub[rng.IntN(len(re.Sub))])
	case syntax.OpStar, syntax.OpQuest:
		for range rng.IntN(3) {
			s += randomMatch(rng, re.Sub[0])
		}
	}
	return s
}

func mutate(rng *rand.Rand, v string) string {
	b := []byte(v)
	for range rng.IntN(3) {
		i := rng.IntN(len(b) + 1)
		switch rng.IntN(4) {
		case 0:
			b = b[:i]
		case 1:
			b = slices.Insert(b, i, []byte("a/\nbé\xe2k\xf0K")[rng.IntN(10)])
		case 2:
			if i < len(b) {
				b[i] = byte(rng.IntN(256))
			}
		}
	}
	return string(b)
}

// Whatever the budget, an automaton is whole or not there.
func TestBudget(t *testing.T) {
	all := compileAll(t, `(.*(\pL)*)*`, `((.*[^/])*)?`, `/a/[^/]+/b`, `é|k`)
	build := func(limit budget) (*subsets, int, error) {
		n := newNFA(false)
		root := n.state()
		for i, p := range all {
			n.addPattern(root, p.tree(), int32(i))
		}
		s := newSubsets(n, limit)
		s.start(root)
		steps := 0
		err := s.run(func(_ int32, list []byteStep) { steps += len(list) })
		return s, steps, err
	}
	const plenty = 1 << 24
	whole, want, err := build(budget{plenty, plenty, plenty})
	if err != nil {
		t.Fatal(err)
	}
	for short := 0; short < 3000; short += 1 + short/4 {
		for _, limit := range []budget{{plenty, plenty - whole.budget.work - 1 - short, plenty}, {plenty, plenty, plenty - whole.budget.kept - 1 - short}, {len(whole.states) - 1 - short, plenty, plenty}} {
			if _, steps, err := build(limit); err == nil {
				t.Fatalf("budget %+v: %d steps of %d and no error", limit, steps, want)
			}
		}
	}
	if _, steps, err := build(budget{len(whole.states), plenty - whole.budget.work, plenty - whole.budget.kept}); err != nil || steps != want {
		t.Errorf("with just enough: %d steps of %d, %v", steps, want, err)
	}
}

// Many patterns are few automata, made soon, and small.
func TestSetOfMany(t *testing.T) {
	for _, c := range []struct {
		name            string
		source          func(i int) string
		tables, perRule int
	}{
		{"fixed", func(i int) string { return fmt.Sprintf("/api/v1/service-%d/items", i) }, 0, 100},
		{"prefix", func(i int) string { return fmt.Sprintf("/public/site-%d/.*", i) }, 1, 100},
		{"within", func(i int) string { return fmt.Sprintf("/api/v1/x-%d/[^/]+/y", i) }, 1, 150},
		{"below", func(i int) string { return fmt.Sprintf("/api/v1/[^/]+/x-%d", i) }, 1, 100},
		{"number", func(i int) string { return fmt.Sprintf("/(a|b)/%d/[0-9]+", i) }, 1, 200},
		{"host", func(i int) string { return fmt.Sprintf(`app-%d\.example\.com(:[0-9]+)?`, i) }, 1, 600},
		{"hosts", func(i int) string { return fmt.Sprintf(`[a-z0-9-]+\.site-%d\.example\.com`, i) }, 1, 300},
		{"contains", func(i int) string { return fmt.Sprintf("/.*/word-%d-/.*", i) }, 1, 300},
		{"suffix", func(i int) string { return fmt.Sprintf(".*word-%d", i) }, 1, 300},
		{"both", func(i int) string { return fmt.Sprintf([]string{".*word-%d", "/api/x-%d/[^/]+/y"}[i%2], i) }, 2, 300},
	} {
		const n = 1000
		var sources []string
		for i := range n {
			sources = append(sources, c.source(i))
		}
		all := compileAll(t, sources...)
		start := time.Now()
		s := NewSet(all)
		t.Logf("%s: %d patterns in %v: %d automata, %d bytes", c.name, n, time.Since(start), len(s.tables), s.Size())
		if len(s.tables) > c.tables || len(s.Unbounded()) > 0 || s.Size() > c.perRule*n {
			t.Errorf("%s: %d automata, %d bytes, %d one by one", c.name, len(s.tables), s.Size(), len(s.Unbounded()))
		}
	}
}

// Patterns whose automaton explodes are matched one by one, and do not spoil the others.
func TestSetOfExploding(t *testing.T) {
	sources := []string{`/a/.*`, `.*a.{30}`, `/b/[^/]+`, strings.Repeat(`(.*a|.*b.{3})`, 200), `((a{0,30}){0,10}b?){0,3}.*a[^b]{0,60}c`, `/c`, `.*\.png`,
		strings.Repeat(`(a|b.*)`, 500) + `x`, `(` + strings.Repeat(`.?`, 1000) + `)x.*y`, strings.Repeat(`\pL?`, 10)}
	start := time.Now()
	all := compileAll(t, sources...)
	var oracles []*regexp.Regexp
	for _, source := range sources {
		oracles = append(oracles, anchored(source))
	}
	s := newChecked(all, oracles)
	t.Logf("%v, %d bytes, %d one by one", time.Since(start), s.Size(), len(s.Unbounded()))
	for _, i := range []int{0, 2, 5, 6} {
		if slices.Contains(s.Unbounded(), i) {
			t.Errorf("%s is matched one by one", sources[i])
		}
	}
	if !slices.Contains(s.Unbounded(), 1) {
		t.Error("an automaton of a billion states")
	}
	for _, v := range []string{"/a/x", "a" + strings.Repeat("b", 30), "/b/x", "x.png", "/a/x.png", "abababc", "ay", "éé"} {
		s.check(t, v)
	}
	// Many of them as well.
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf(`.*%d.{20}`, i))
	}
	start = time.Now()
	set := NewSet(compileAll(t, many...))
	t.Logf("%d: %v, %d bytes, %d one by one", len(many), time.Since(start), set.Size(), len(set.Unbounded()))
}

func TestSetAppend(t *testing.T) {
	var none Set
	if got := none.Append([]uint32{7}, []byte("x")); !slices.Equal(got, []uint32{7}) {
		t.Errorf("the zero set: %v", got)
	}
	s := NewSet(append(compileAll(t, `.*a.*`, `.*b.*`, `ab|x`, `.*`, `(?s).*`), nil, &Pattern{}))
	if got := s.Append([]uint32{9}, []byte("aabbaab")); !slices.Equal(got, []uint32{9, 0, 1, 3, 4}) {
		t.Errorf("%v", got)
	}
	if got := s.Append(nil, []byte("a\nb")); !slices.Equal(got, []uint32{4}) {
		t.Errorf("with a newline: %v", got)
	}
	room := make([]uint32, 1, 9)
	long := []byte(strings.Repeat("ab", 1000))
	if n := testing.AllocsPerRun(100, func() { s.Append(room, long) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzSet takes patterns, one a line, and a value.
func FuzzSet(f *testing.F) {
	for i := range patterns {
		f.Add(strings.Join(patterns[i:min(i+4, len(patterns))], "\n"), values[i%len(values)])
	}
	f.Fuzz(func(t *testing.T, sources, value string) {
		var all []*Pattern
		var oracles []*regexp.Regexp
		for _, source := range strings.SplitN(sources, "\n", 9) {
			if p, err := Compile(source); err == nil && len(all) < 8 {
				all, oracles = append(all, p), append(oracles, anchored(source))
			}
		}
		s := newChecked(all, oracles)
		s.check(t, value)
		classes, err := classes(nil, all, budget{states: 500, work: 1 << 14, kept: 1 << 14})
		if err != nil {
			return
		}
		of := func(v []byte) (class []int) {
			for _, i := range s.Append(nil, v) {
				class = append(class, int(i))
			}
			return class
		}
		found := false
		for _, c := range classes {
			if !slices.Equal(of(c.Witness), c.Patterns) {
				t.Fatalf("%q: class %v has witness %q", all, c.Patterns, c.Witness)
			}
			if slices.Equal(c.Patterns, of([]byte(value))) {
				found = true
				if len(c.Witness) > len(value) {
					t.Fatalf("%q: class %v has witness %q, longer than %q", all, c.Patterns, c.Witness, value)
				}
			}
		}
		if !found {
			t.Fatalf("%q: %q is in no class", all, value)
		}
	})
}
