// Package learn makes a policy of what an endpoint was seen to do: the narrowest that a
// person would still write. It performs no I/O.
package learn

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"sync"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// maxRequests is how many different requests are noted for one destination. Of the others
// only the directory is.
const maxRequests = 4096

// Book notes what one endpoint does. The zero value is ready; it is safe for concurrent
// use.
type Book struct {
	mu    sync.Mutex
	dests map[destination]*deeds
}

// destination is a peer and a port as rules can name them.
type destination struct {
	addr  netip.Addr // zero for the host
	proto uint8
	port  uint16
}

// deeds is what was said to one destination.
type deeds struct {
	whole    int // connections and datagrams that were no HTTP
	requests map[request]int
}

// request is one HTTP request, as a rule would name it exactly.
type request struct{ host, method, path, query string }

// Sink notes records on their way to next. Only what the endpoint itself began counts, and
// what was let through.
func (b *Book) Sink(next flow.Sink) flow.Sink {
	return func(r *flow.Record) {
		b.note(r)
		next(r)
	}
}

func (b *Book) note(r *flow.Record) {
	if r.Direction != flow.Egress || r.Verdict != flow.Forwarded && r.Verdict != flow.Audit {
		return
	}
	d := destination{addr: r.Destination.Addr.Addr(), proto: l7rules.ProtoTCP, port: r.Destination.Addr.Port()}
	if r.Destination.Identity == uint32(identity.Host) {
		d.addr = netip.Addr{}
	} else if !identity.ID(r.Destination.Identity).IsWorld() {
		return // itself
	}
	http, _ := r.Request.(*l7rules.HTTPRequest)
	switch {
	case r.Type == "udp-send":
		d.proto = l7rules.ProtoUDP
	case http == nil && r.Type != "tcp-connect":
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	did := b.dests[d]
	if did == nil {
		if b.dests == nil {
			b.dests = map[destination]*deeds{}
		}
		did = &deeds{requests: map[request]int{}}
		b.dests[d] = did
	}
	if http == nil {
		did.whole++
		return
	}
	path, query, _ := bytes.Cut(http.Path, []byte("?"))
	q := request{host: string(http.Host), method: string(http.Method), path: string(path), query: string(query)}
	if _, ok := did.requests[q]; !ok && len(did.requests) >= maxRequests {
		q.path = q.path[:1+bytes.LastIndexByte(path, '/')] + many
		q.query = many
	}
	did.requests[q]++
}

// many stands in a noted path or query for what was not noted any more. It is in none: a
// canonical path has no such byte.
const many = "\x00"

func compareDestinations(a, b destination) int {
	return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.proto, b.proto), cmp.Compare(a.port, b.port))
}

func sorted[K comparable, V any](m map[K]V, compare func(a, b K) int) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compare)
	return keys
}
