package prove

import (
	"fmt"
	"slices"

	"github.com/weir-proxy/weir/l7rules"
)

// Change is a difference between two sets of policies: something that one lets through
// from one kind of sender to one kind of receiver, and the other does not.
type Change struct {
	// Widened says that the new set lets more through, else it lets less through.
	Widened bool
	// Protos and the ports from First to Last are where.
	Protos      []uint8
	First, Last uint16
	// Flow is a witness.
	Flow Flow
	// Pairs counts the senders and receivers for which it is the same: the same ports and
	// witness, and on the sides that changed the same rules before and now.
	Pairs int
}

// Result is what a comparison found.
type Result struct {
	Changes []Change
	// Unknown says what was not compared to the end.
	Unknown []*Unknown
}

// maxChanges bounds what a comparison lists.
const maxChanges = 100_000

// Diff compares two sets of policies. Changes that are the same for many pairs are one,
// unless each shall be listed. The error says that a set contradicts itself, or is an
// *Unknown.
func Diff(older, newer []*l7rules.Policy, known Known, each bool) (*Result, error) {
	s, err := newSpace(&differences{seen: map[string]bool{}}, known, older, newer)
	if err != nil {
		return nil, err
	}
	d := &differ{space: s, each: each, result: &Result{}, compared: map[[4]*table][]difference{}, judged: map[[4]verdict]*comparison{}, seen: map[string]int{}}
	if err := s.pairs(d.pair); err != nil {
		return nil, err
	}
	return d.result, nil
}

type differ struct {
	*space
	each     bool
	result   *Result
	compared map[[4]*table][]difference
	judged   map[[4]verdict]*comparison
	seen     map[string]int // changes by their key
}

// difference is a Change of any pair whose sides have the same tables.
type difference struct {
	widened     bool
	protos      []uint8
	first, last uint16
	witness     *witness
	cause       string // what the sides that changed said before, and what they say now
	key         string // the same where a reader sees the same
}

// verdict is a side without its name: what decides.
type verdict struct {
	action l7rules.Action
	rules  *l7rules.Ruleset
}

// comparison is what widened and what narrowed between four sides.
type comparison struct {
	widened, narrowed *witness
}

func (d *differ) pair(from, to int) error {
	var buf [4]*table
	tables := d.tables(buf[:0], from, to)
	key := [4]*table(tables)
	list, ok := d.compared[key]
	if !ok {
		var err error
		if list, err = d.compare(from, to, tables); err != nil {
			return err
		}
		d.compared[key] = list
	}
	for i := range list {
		if err := d.add(&list[i], from, to); err != nil {
			return err
		}
	}
	return nil
}

// compare finds all differences between the tables of a pair.
func (d *differ) compare(from, to int, tables []*table) ([]difference, error) {
	if tables[0].meaning == tables[2].meaning && tables[1].meaning == tables[3].meaning {
		return nil, nil
	}
	var list []difference
	for i, proto := range protocols {
		begin := len(list)
		err := each(i, tables, nil, func(first, last uint16, sides []side) error {
			c, err := d.judge(from, to, proto, first, sides)
			if err != nil {
				return err
			}
			for _, w := range []*witness{c.widened, c.narrowed} {
				if w == nil {
					continue
				}
				n := difference{w == c.widened, []uint8{proto}, first, last, w, cause(sides), ""}
				at := slices.IndexFunc(list[begin:], func(p difference) bool { return int(p.last)+1 == int(first) && p.same(&n) })
				if at >= 0 {
					list[begin+at].last = last
				} else {
					list = append(list, n)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return joined(list), nil
}

// joined makes one of differences that differ in the protocol alone, and gives each its
// key.
func joined(list []difference) []difference {
	var kept []difference
	for _, n := range list {
		at := slices.IndexFunc(kept, func(k difference) bool { return k.same(&n) && k.first == n.first && k.last == n.last })
		if at >= 0 {
			kept[at].protos = append(kept[at].protos, n.protos...)
		} else {
			kept = append(kept, n)
		}
	}
	for i := range kept {
		n := &kept[i]
		request := ""
		if n.witness.request != nil {
			request = string(n.witness.request.AppendText(nil))
		}
		n.key = fmt.Sprintln(n.widened, n.protos, n.first, n.last, n.witness.raw, request, n.cause)
	}
	return kept
}

// same reports whether two differences are one but for the ports and protocols.
func (n *difference) same(o *difference) bool {
	return n.widened == o.widened && n.cause == o.cause && n.witness.request == o.witness.request && n.witness.raw == o.witness.raw
}

func cause(sides []side) string {
	text := ""
	for i := range 2 {
		before, after := sides[i], sides[i+2]
		if before.action != after.action || before.policy != after.policy || before.rules != nil || after.rules != nil {
			text += [...]string{"egress", "ingress"}[i] + " " + before.action.String() + " " + before.policy + " " + after.action.String() + " " + after.policy + "\n"
		}
	}
	return text
}

// judge compares what four sides let through on a range of ports.
func (d *differ) judge(from, to int, proto uint8, port uint16, sides []side) (*comparison, error) {
	key := [4]verdict{}
	for i, s := range sides {
		key[i] = verdict{s.action, s.rules}
	}
	if c, ok := d.judged[key]; ok {
		return c, nil
	}
	d.note(from, to, proto, port, sides)
	before, after := throughBoth(sides[0], sides[1]), throughBoth(sides[2], sides[3])
	c := &comparison{}
	var err error
	if c.widened, err = d.beyond(after, before); err == nil {
		c.narrowed, err = d.beyond(before, after)
	}
	if u, ok := err.(*Unknown); ok {
		if !slices.ContainsFunc(d.result.Unknown, func(o *Unknown) bool { return *o == *u }) {
			d.result.Unknown = append(d.result.Unknown, u)
		}
	} else if err != nil {
		return nil, err
	}
	d.judged[key] = c
	return c, nil
}

// add takes in a difference of a pair.
func (d *differ) add(n *difference, from, to int) error {
	if at, ok := d.seen[n.key]; ok && !d.each {
		d.result.Changes[at].Pairs++
		return nil
	}
	if len(d.result.Changes) == maxChanges {
		return &Unknown{Reason: fmt.Sprintf("there are more than %d differences", maxChanges)}
	}
	d.seen[n.key] = len(d.result.Changes)
	c := Change{Widened: n.widened, Protos: n.protos, First: n.first, Last: n.last, Pairs: 1,
		Flow: Flow{From: d.ends[from], To: d.ends[to], Proto: n.protos[0], Port: readable(n.protos[0], n.first, n.last), Raw: n.witness.raw}}
	c.Flow.Request = n.witness.request
	d.result.Changes = append(d.result.Changes, c)
	return nil
}
