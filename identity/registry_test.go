package identity

import "testing"

func TestRegistry(t *testing.T) {
	ls := func(texts ...string) Labels {
		t.Helper()
		l, err := ParseLabels(texts...)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	get := func(r *Registry, l Labels) ID {
		t.Helper()
		id, err := r.Acquire(l)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	var r Registry
	a := get(&r, ls("app=a", "tier=x"))
	if a != FirstEndpoint {
		t.Errorf("first identity %d, want %d", a, FirstEndpoint)
	}
	if again := get(&r, ls("tier=x", "app=a")); again != a {
		t.Errorf("the same labels in another order: %d, want %d", again, a)
	}
	b := get(&r, ls("app=b"))
	if b == a {
		t.Error("other labels have the same identity")
	}
	r.Release(a)
	if ids, labels := r.All(); len(ids) != 2 || !labels[a].Equal(ls("app=a", "tier=x")) {
		t.Errorf("after one of two references went: %v", ids)
	}
	r.Release(a)
	if ids, _ := r.All(); len(ids) != 1 || ids[0] != b {
		t.Errorf("after the last reference went: %v", ids)
	}
	if c := get(&r, ls("app=c")); c == a || c == b {
		t.Errorf("a new label set got %d, which means something else still or did a moment ago", c)
	}
	r.Release(12345) // nobody's: nothing happens

	r.next = FirstLocal - 1
	last, first := get(&r, ls("app=d")), get(&r, ls("app=e"))
	if last != FirstLocal-1 || first != a {
		t.Errorf("at the end of the range: %d, %d; want %d and the first free, %d", last, first, FirstLocal-1, a)
	}
}
