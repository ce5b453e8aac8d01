package identity

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

func TestPrefixes(t *testing.T) {
	var p Prefixes
	get := func(s string) ID {
		t.Helper()
		id, err := p.Acquire(netip.MustParsePrefix(s))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	if id, prefix := p.Lookup(netip.MustParseAddr("10.0.0.1")); id != WorldIPv4 || prefix.IsValid() {
		t.Errorf("of nothing: %v %v", id, prefix)
	}
	wide, narrow, six := get("10.0.0.0/8"), get("10.1.2.3/16"), get("fd00::/8")
	if wide != FirstLocal || narrow == wide || six == narrow {
		t.Errorf("numbers %d, %d, %d", wide, narrow, six)
	}
	if again := get("10.1.0.0/16"); again != narrow {
		t.Errorf("one prefix has two numbers, %d and %d", narrow, again)
	}
	for addr, want := range map[string]ID{
		"10.1.9.9": narrow, "10.2.0.1": wide, "::ffff:10.1.9.9": narrow, "11.0.0.1": WorldIPv4, "fd12::1": six, "fd12::1%eth0": six, "2001:db8::1": WorldIPv6,
		"a00::": WorldIPv6,
	} {
		id, prefix := p.Lookup(netip.MustParseAddr(addr))
		if id != want || prefix.IsValid() != (id >= FirstLocal) {
			t.Errorf("%s is %v %v, want %v", addr, id, prefix, want)
		}
	}
	if id, _ := p.Lookup(netip.Addr{}); id != Unknown {
		t.Errorf("no address is %v", id)
	}
	p.Release(netip.MustParsePrefix("10.1.0.0/16"))
	if id, _ := p.Lookup(netip.MustParseAddr("10.1.9.9")); id != narrow {
		t.Error("gone after one of two references went")
	}
	p.Release(netip.MustParsePrefix("10.1.0.0/16"))
	if id, _ := p.Lookup(netip.MustParseAddr("10.1.9.9")); id != wide || len(p.All()) != 2 {
		t.Errorf("after the last reference went: %v, %v", id, p.All())
	}
	p.Release(netip.MustParsePrefix("10.1.0.0/16")) // nobody's: nothing happens
	if id := get("10.1.0.0/16"); id == narrow || id == wide || id == six {
		t.Errorf("%d is given out again", id)
	}
	p.next = 1<<32 - 1
	if last, first := get("1.0.0.0/8"), get("2.0.0.0/8"); last != 1<<32-1 || first != narrow {
		t.Errorf("at the end of the range: %d, %d; want the last number and the first free one, %d", last, first, narrow)
	}
	for _, bad := range []netip.Prefix{{}, netip.MustParsePrefix("::ffff:10.0.0.0/104")} {
		if id, err := p.Acquire(bad); err == nil || id != Unknown {
			t.Errorf("%v: %v, %v", bad, id, err)
		}
	}
}

// Whatever prefixes there are, the longest is found that a look at all of them finds.
func TestPrefixesFindTheLongest(t *testing.T) {
	for seed := range uint64(200) {
		g := rand.New(rand.NewPCG(seed, 1))
		addr := func() netip.Addr {
			if g.IntN(2) == 0 {
				return netip.AddrFrom4([4]byte{10, byte(g.IntN(2)), byte(g.IntN(3)), byte(g.IntN(4))})
			}
			return netip.AddrFrom16([16]byte{0: 0xfd, 5: byte(g.IntN(2)), 15: byte(g.IntN(4))})
		}
		var p Prefixes
		held := map[netip.Prefix]int{}
		for range 40 {
			a := addr()
			prefix, err := a.Prefix(g.IntN(a.BitLen() + 1))
			if err != nil {
				t.Fatal(err)
			}
			if g.IntN(3) == 0 && held[prefix] > 0 {
				held[prefix]--
				p.Release(prefix)
				continue
			}
			held[prefix]++
			if _, err := p.Acquire(prefix); err != nil {
				t.Fatal(err)
			}
		}
		for range 100 {
			a := addr()
			want := netip.Prefix{}
			for prefix, n := range held {
				if n > 0 && prefix.Contains(a) && (!want.IsValid() || prefix.Bits() > want.Bits()) {
					want = prefix
				}
			}
			id, got := p.Lookup(a)
			if got != want || got.IsValid() && p.All()[got] != id {
				t.Fatalf("set %d: %s is in %v (%v), want %v", seed, a, got, id, want)
			}
		}
	}
}
