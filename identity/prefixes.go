package identity

import (
	"fmt"
	"net/netip"
	"sync"
)

// Prefixes numbers the prefixes of addresses outside that policies name, from FirstLocal
// on, and finds the one that an address belongs to. A number that went out of use is not
// given out again while others are left.
type Prefixes struct {
	mu      sync.Mutex
	numbers map[netip.Prefix]*numbered
	used    map[ID]bool
	next    ID
	lengths [2][129]int // how many prefixes there are of a length, IPv4 and IPv6
}

type numbered struct {
	id   ID
	refs int
}

// Acquire returns the identity of a prefix. Each call is undone by one Release. A prefix
// of IPv4 is written as such, not mapped into IPv6; bits behind its length mean nothing.
func (p *Prefixes) Acquire(prefix netip.Prefix) (ID, error) {
	if !prefix.IsValid() || prefix.Addr().Is4In6() || prefix.Addr().Zone() != "" {
		return Unknown, fmt.Errorf("number prefix %s: no prefix of addresses", prefix)
	}
	prefix = prefix.Masked()
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.numbers[prefix]; n != nil {
		n.refs++
		return n.id, nil
	}
	if p.numbers == nil {
		p.numbers, p.used, p.next = map[netip.Prefix]*numbered{}, map[ID]bool{}, FirstLocal
	}
	for p.used[p.next] { // there are more numbers than memory for prefixes
		p.step()
	}
	n := &numbered{id: p.next, refs: 1}
	p.step()
	p.numbers[prefix], p.used[n.id] = n, true
	p.lengths[family(prefix.Addr())][prefix.Bits()]++
	return n.id, nil
}

func (p *Prefixes) step() {
	if p.next++; p.next == 0 {
		p.next = FirstLocal
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// Release gives back what Acquire returned.
func (p *Prefixes) Release(prefix netip.Prefix) {
	prefix = prefix.Masked()
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.numbers[prefix]
	if n == nil {
		return
	}
	if n.refs--; n.refs == 0 {
		delete(p.numbers, prefix)
		delete(p.used, n.id)
		p.lengths[family(prefix.Addr())][prefix.Bits()]--
	}
}

// Lookup returns the longest prefix that contains an address, and its identity. Without
// one it is the world of the address's family; of no address it is Unknown.
func (p *Prefixes) Lookup(addr netip.Addr) (ID, netip.Prefix) {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return Unknown, netip.Prefix{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for bits := addr.BitLen(); bits >= 0; bits-- {
		if p.lengths[family(addr)][bits] == 0 {
			continue
		}
		if prefix, err := addr.Prefix(bits); err == nil && p.numbers[prefix] != nil {
			return p.numbers[prefix].id, prefix
		}
	}
	if addr.Is4() {
		return WorldIPv4, netip.Prefix{}
	}
	return WorldIPv6, netip.Prefix{}
}

// All returns the prefixes in use and their identities.
func (p *Prefixes) All() map[netip.Prefix]ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[netip.Prefix]ID, len(p.numbers))
	for prefix, n := range p.numbers {
		all[prefix] = n.id
	}
	return all
}
