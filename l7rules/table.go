package l7rules

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sort"
	"strings"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// Action is what happens to a connection. The zero value denies.
type Action uint8

const (
	ActionDeny     Action = iota // refused
	ActionAllow                  // untouched
	ActionRedirect               // through the proxy, which judges each request
)

// String is the action's name.
func (a Action) String() string {
	switch a {
	case ActionAllow:
		return "allow"
	case ActionRedirect:
		return "redirect"
	}
	return "deny"
}

// Entry is the verdict on a range of ports of one IP protocol. The zero value
// denies.
type Entry struct {
	Proto       uint8 // IP protocol number; 0 is every one that the table does not list
	First, Last uint16
	Action      Action
	Rules       *Ruleset // ActionRedirect only
	// Policy names the rule that decided, as "namespace/name[egress 0]"; "" where the
	// direction's default or, for ActionRedirect, more than one rule did.
	Policy string
	// Reason says why no rule decided.
	Reason string
	// Audit says, with ActionAllow, that this would have been refused, by Policy or for
	// Reason, but for policies that only audit: see audit.go.
	Audit bool
}

// Decision is the verdict on a connection; of one with ActionRedirect, that it comes as far
// as to be judged by its requests.
func (e *Entry) Decision() Decision {
	d := Decision{Policy: e.Policy, Reason: e.Reason}
	switch {
	case e.Action == ActionAllow && e.Audit:
		d.Verdict = flow.Audit
	case e.Action == ActionAllow || e.Action == ActionRedirect:
		d.Verdict = flow.Forwarded
	}
	return d
}

func (e *Entry) sameVerdict(f *Entry) bool {
	return e.Action == f.Action && e.Audit == f.Audit && e.Rules == f.Rules && e.Policy == f.Policy && e.Reason == f.Reason
}

// portTable holds, per IP protocol and sorted, the verdict on every port of one peer.
type portTable struct {
	protos  []uint8 // sorted; 0 stands for all others
	entries [][]Entry
	listed  []Entry // all that say more than that nothing allows
}

// span is one range of ports that a rule covers.
type span struct {
	first, last uint16
	rule, port  int // indices; port is -1 for AnyPort
}

// Table returns the final verdicts on what a peer and the subject say to each other:
// disjoint ranges, sorted by protocol and port, denials already applied.
//
// Where the direction is enforced, what no rule names is refused and left out: absence
// denies. Where it is not, the table has no gaps.
func (ep *EndpointPolicy) Table(dir flow.Direction, peer Peer) []Entry {
	if dir > flow.Ingress || peer.ID == identity.Unknown {
		return nil
	}
	return slices.Clone(ep.dirs[dir].table(peer).listed)
}

// Lookup is the verdict on one port. First and Last are the range around it with the
// same one. For a refusal by default the Reason names the nearest rule.
func (ep *EndpointPolicy) Lookup(dir flow.Direction, peer Peer, proto uint8, port uint16) Entry {
	if dir > flow.Ingress {
		return Entry{Proto: proto, First: port, Last: port, Reason: "unknown direction"}
	}
	if peer.ID == identity.Unknown {
		return Entry{Proto: proto, Last: 65535, Reason: "the peer has no identity"}
	}
	d := &ep.dirs[dir]
	e := d.table(peer).lookup(proto, port)
	if (e.Action == ActionDeny || e.Audit) && e.Policy == "" && e.Reason == "" {
		e.Reason = d.explainPeer(dir, peer, proto, port)
	}
	return e
}

func (t *portTable) lookup(proto uint8, port uint16) Entry {
	i, ok := slices.BinarySearch(t.protos, proto)
	if !ok || proto == 0 {
		i = 0
	}
	entries := t.entries[i]
	j := sort.Search(len(entries), func(j int) bool { return entries[j].Last >= port })
	e := entries[j]
	e.Proto = proto
	return e
}

// table returns the verdicts for a peer, from the last time if there was one.
func (d *direction) table(peer Peer) *portTable {
	key := peerKey{peer.ID, peer.Prefix, peer.Labels.String(), strings.Join(peer.Names, ",")}
	d.mu.Lock()
	defer d.mu.Unlock()
	if t, ok := d.byPeer[key]; ok {
		return t
	}
	if d.byPeer == nil || len(d.byPeer) >= maxPeers {
		d.byPeer = map[peerKey]*portTable{}
	}
	var covering []int
	labels := peer.labels()
	for i := range d.rules {
		if d.rules[i].Peers.match(peer, labels) {
			covering = append(covering, i)
		}
	}
	t := d.tableOf(covering)
	d.byPeer[key] = t
	return t
}

// tableOf returns the verdicts for a peer that the given rules cover. The caller holds
// d.mu.
func (d *direction) tableOf(covering []int) *portTable {
	var set []byte
	for _, i := range covering {
		set = binary.AppendUvarint(set, uint64(i))
	}
	if t, ok := d.tables[string(set)]; ok {
		return t
	}
	if d.tables == nil || len(d.tables) >= maxPeers {
		d.tables = map[string]*portTable{}
		d.rulesets = map[string]*Ruleset{}
	}
	t := d.build(covering)
	d.tables[string(set)] = t
	return t
}

// build makes the table of a peer that the given rules cover.
func (d *direction) build(covering []int) *portTable {
	spans := map[uint8][]span{0: nil, ProtoTCP: nil, ProtoUDP: nil}
	for _, i := range covering {
		for j := range d.rules[i].Ports {
			for _, r := range d.rules[i].Ports[j].Ports {
				spans[r.Proto] = append(spans[r.Proto], span{r.First, r.Last, i, j})
			}
		}
	}
	for _, i := range covering {
		if d.rules[i].AnyPort {
			for proto := range spans {
				spans[proto] = append(spans[proto], span{0, 65535, i, -1})
			}
		}
	}
	t := &portTable{}
	for proto := range spans {
		t.protos = append(t.protos, proto)
	}
	slices.Sort(t.protos)
	for _, proto := range t.protos {
		t.entries = append(t.entries, d.sweep(proto, spans[proto]))
		for _, e := range t.entries[len(t.entries)-1] {
			if e.Action != ActionDeny || e.Policy != "" || e.Reason != "" {
				t.listed = append(t.listed, e)
			}
		}
	}
	return t
}

// sweep goes through the ports from 0 to 65535 with the set of spans that cover the
// current one.
func (d *direction) sweep(proto uint8, spans []span) []Entry {
	bySpan := func(a, b span) int { return cmp.Or(cmp.Compare(a.rule, b.rule), cmp.Compare(a.port, b.port)) }
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.first, b.first), bySpan(a, b)) })
	starts := map[int]bool{0: true}
	for _, s := range spans {
		starts[int(s.first)] = true
		starts[int(s.last)+1] = true
	}
	delete(starts, 65536)
	bounds := make([]int, 0, len(starts)+1)
	for b := range starts {
		bounds = append(bounds, b)
	}
	slices.Sort(bounds)
	bounds = append(bounds, 65536)

	var entries []Entry
	var active []span
	for i, first := range bounds[:len(bounds)-1] {
		active = slices.DeleteFunc(active, func(s span) bool { return int(s.last) < first })
		for len(spans) > 0 && int(spans[0].first) == first {
			at, _ := slices.BinarySearchFunc(active, spans[0], bySpan)
			active = slices.Insert(active, at, spans[0])
			spans = spans[1:]
		}
		e := d.decide(active)
		e.Proto, e.First, e.Last = proto, uint16(first), uint16(bounds[i+1]-1)
		if n := len(entries); n > 0 && entries[n-1].sameVerdict(&e) {
			entries[n-1].Last = e.Last
			continue
		}
		entries = append(entries, e)
	}
	return entries
}
