package match

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// A name in a set says what it says alone.
func TestNamesInASet(t *testing.T) {
	sources := []string{"a.test", "A.Test.", "*.a.test", "**.a.test", "*", "**", "***.test", "a*.test", "*a*.test", "x.*.test", "a.*", "*.*", "b-_9.test", "**.*.test", strings.Repeat("*.", 127) + "a"}
	names := []Name{{}}
	for _, source := range sources {
		n, err := CompileNamePattern(source)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, n)
	}
	var patterns []*Pattern
	for _, n := range names {
		p, err := n.Pattern()
		if err != nil {
			t.Fatal(err)
		}
		patterns = append(patterns, p)
	}
	s := NewSet(patterns)
	if len(s.Unbounded()) > 0 {
		t.Errorf("matched one by one: %v", s.Unbounded())
	}
	parts := []string{"a", "A", "b", "x", "test", "TEST", ".", ".", ".", "-", "_9", "\u212a", "\n", "\xff", " "}
	rng := rand.New(rand.NewPCG(7, 8))
	for range 50_000 {
		name := ""
		for range rng.IntN(8) {
			name += parts[rng.IntN(len(parts)-rng.IntN(2)*5)]
		}
		if strings.HasSuffix(name, "..") {
			continue // nobody asks for it
		}
		var want []uint32
		for i, n := range names {
			if n.Match(name) {
				want = append(want, uint32(i))
			}
		}
		if got := s.Append(nil, []byte(name)); !slices.Equal(got, want) {
			t.Fatalf("%q: %v, one by one %v", name, got, want)
		}
	}
	if _, err := Classes(nil, patterns[:len(patterns)-1]); err != nil {
		t.Errorf("classes of names: %v", err)
	}
}
