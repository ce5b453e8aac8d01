package match

import (
	"regexp"
	"strings"
	"testing"
)

func TestName(t *testing.T) {
	for _, c := range []struct{ pattern, yes, no string }{
		{"a.test", "a.test A.TEST a.test.", "b.a.test xa.test a.testx a.test.. test a_test"},
		{"a.test.", "a.test a.test.", "a"},
		{"*.a.test", "x.a.test X.A.Test. x-1_y.a.test", "a.test x.y.a.test .a.test xa.test x.a.test.evil x!.a.test x\\.a.test é.a.test"},
		{"**.a.test", "x.a.test x.y.a.test x.y.z.a.test", "a.test xa.test .a.test ..a.test x..a.test x!.y.a.test"},
		{"***.a.test", "x.a.test x.y.a.test", "a.test"},
		{"*", "a.test . x.y.z \\255.x", ""},
		{"**", "a.test", ""},
		{"*.", "a.test", ""},
		{"*a.test", "a.test xa.test", "x.a.test"},
		{"**a.test", "a.test xa.test", "x.a.test"},
		{"sub*.a.test", "sub.a.test subx.a.test", "sux.a.test sub.x.a.test"},
		{"a*b*c.test", "abc.test axbxc.test abbcbc.test", "ac.test a.b.c.test abcx.test"},
		{"x.*", "x.y", "x. x.. x"},
		{"x.*.a.test", "x.y.a.test", "x.y.z.a.test x.a.test"},
		{"x.**.a.test", "x.y.a.test", "x.y.z.a.test x.a.test"},
		{"**.x*.test", "a.x.test a.b.xy.test", "x.test a.y.test"},
	} {
		n, err := CompileNamePattern(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range strings.Fields(c.yes) {
			if !n.Match(name) {
				t.Errorf("%s does not match %s", c.pattern, name)
			}
		}
		for _, name := range strings.Fields(c.no) {
			if n.Match(name) {
				t.Errorf("%s matches %s", c.pattern, name)
			}
		}
		if n.Match(strings.Repeat("x.", 200)+"a.test") != (n.kind == nameAll) {
			t.Errorf("%s: a name that is too long", c.pattern)
		}
	}
	for _, bad := range []string{"", ".", "..", "a..b", ".a", "a b", "a/b", "é", "a.test..", "\x00", "*..a", strings.Repeat("a", MaxNameLen+1)} {
		if n, err := CompileNamePattern(bad); err == nil {
			t.Errorf("%q is the pattern %v", bad, n)
		}
		if n, err := CompileName(bad); err == nil {
			t.Errorf("%q is the name %v", bad, n)
		}
	}
	if _, err := CompileName("*.a.test"); err == nil || !strings.Contains(err.Error(), "patterns") {
		t.Errorf("a pattern as a name: %v", err)
	}
	var zero Name
	if zero.Match("") || zero.Match(".") || zero.Match("a") || zero.Key() != "" {
		t.Error("the zero name matches")
	}
	n, _ := CompileNamePattern("A.Test.")
	if exact, ok := n.Exact(); !ok || exact != "a.test" || n.String() != "A.Test." {
		t.Errorf("%v is %q, %v", n, exact, ok)
	}
	for name, want := range map[string]bool{"a.test": true, "a.test.": true, "": false, ".": false, "a..b": false, ".a": false, "a!": false, "a\\.b": false, "A_-9": true} {
		if IsName(name) != want {
			t.Errorf("IsName(%q) is %v", name, !want)
		}
	}
	if allocs := testing.AllocsPerRun(100, func() { n.Match("x.y.a.test") }); allocs > 0 {
		t.Errorf("Match: %v allocations", allocs)
	}
}

// ciliumName is Cilium's own way: pkg/fqdn/matchpattern of 1.19 turns a pattern into this
// regular expression, and compares it with the name in lower case and with a final dot.
func ciliumName(pattern string) *regexp.Regexp {
	if regexp.MustCompile(`^[*]+[.]?$`).MatchString(pattern) {
		return regexp.MustCompile(``)
	}
	pattern = strings.ReplaceAll(strings.ToLower(strings.TrimSuffix(pattern, ".")+"."), ".", "[.]")
	pattern = regexp.MustCompile(`^[*]{2,}\[\.\]`).ReplaceAllString(pattern, `([-a-zA-Z0-9_]+([.][-a-zA-Z0-9_]+){0,})[.]`)
	return regexp.MustCompile("^" + regexp.MustCompile("[*]+").ReplaceAllString(pattern, "[-a-zA-Z0-9_]*") + "$")
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"a.test x.a.test", "*.a.test x.a.test", "**.a.test x.y.a.test", "a*b*c.test axbxc.test", "* .", "**.*.a b.a.a", "x.**.a x.y.a"} {
		pattern, name, _ := strings.Cut(s, " ")
		f.Add(pattern, name)
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		n, err := CompileNamePattern(pattern)
		if err != nil {
			return
		}
		again, err := CompileNamePattern(n.Key())
		if err != nil || again.Key() != n.Key() {
			t.Fatalf("%q has key %q, which is read as %q, %v", pattern, n.Key(), again.Key(), err)
		}
		if !IsName(name) {
			if n.kind != nameAll && n.Match(name) && strings.Contains(pattern, "*") {
				t.Fatalf("%q matches %q, which is no name", pattern, name)
			}
			return
		}
		want := ciliumName(pattern).MatchString(strings.ToLower(strings.TrimSuffix(name, ".")) + ".")
		if got := n.Match(name); got != want || again.Match(name) != want {
			t.Fatalf("%q, %q: %v, Cilium's expression says %v", pattern, name, got, want)
		}
	})
}
