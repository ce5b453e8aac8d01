package explain

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/prove"
)

// Difference is something that one set of policies lets through and another does not,
// shown by one question.
type Difference struct {
	Widened     bool // the new set lets it through, else the old one
	Query       Query
	Old, New    *Answer // to Query
	Protos      []uint8 // on the ports from First to Last of these
	First, Last uint16
	Pairs       int // of senders and receivers for which the same rules make the same difference
}

// Comparison is what Diff found. An empty one without unknowns says that two sets mean the
// same.
type Comparison struct {
	Differences []Difference
	Unknown     []string
}

// Diff compares two sets of policies. With each it says the same about everything that is
// not among the differences, unless there are unknowns. Differences for many pairs that the
// same rules make are one, unless each pair shall be listed. The error says that a set
// contradicts itself, or that there is no answer at all.
func Diff(older, newer *Set, each bool) (*Comparison, error) {
	result, err := prove.Diff(older.policies, newer.policies, knownOf(older.config, older.only), each)
	if err != nil {
		return nil, err
	}
	c := &Comparison{}
	for _, u := range result.Unknown {
		c.Unknown = append(c.Unknown, u.Error())
	}
	for i := range result.Changes {
		d, err := confirm(older, newer, &result.Changes[i])
		if err != nil {
			c.Unknown = append(c.Unknown, err.Error())
			continue
		}
		c.Differences = append(c.Differences, *d)
	}
	return c, nil
}

// confirm asks both sets about the witness of a change.
func confirm(older, newer *Set, c *prove.Change) (*Difference, error) {
	q, err := queryOf(&c.Flow)
	if err != nil {
		return nil, err
	}
	d := &Difference{Widened: c.Widened, Query: q, Protos: c.Protos, First: c.First, Last: c.Last, Pairs: c.Pairs}
	if d.Old, err = older.Ask(q); err != nil {
		return nil, fmt.Errorf("ask the old policies about %s: %w", q.Command(), err)
	}
	if d.New, err = newer.Ask(q); err != nil {
		return nil, fmt.Errorf("ask the new policies about %s: %w", q.Command(), err)
	}
	if d.Old.through() == c.Widened || d.New.through() != c.Widened {
		return nil, fmt.Errorf("weir policy explain does not confirm that %s differs: please report this", q.Command())
	}
	return d, nil
}

// through reports whether what was asked about gets to its destination.
func (a *Answer) through() bool { return a.Verdict == flow.Forwarded || a.Verdict == flow.Audit }

// WriteText writes each difference: in which direction, for whom, the witness, and what
// both sets say to it.
func (c *Comparison) WriteText(w io.Writer) error {
	for i := range c.Differences {
		d := &c.Differences[i]
		text := "NARROWED "
		if d.Widened {
			text = "WIDENED "
		}
		text += d.New.From + " -> " + d.New.To + " " + d.ports()
		if d.Pairs == 2 {
			text += ", and one more pair"
		} else if d.Pairs > 2 {
			text += ", and " + strconv.Itoa(d.Pairs-1) + " more pairs"
		}
		text += "\n  shown by " + d.Query.Command() + "\n"
		text += "  old: " + d.Old.because() + "\n  new: " + d.New.because() + "\n"
		if _, err := io.WriteString(w, text); err != nil {
			return fmt.Errorf("write differences: %w", err)
		}
	}
	for _, u := range c.Unknown {
		if _, err := fmt.Fprintf(w, "UNKNOWN %s\n", u); err != nil {
			return fmt.Errorf("write differences: %w", err)
		}
	}
	return nil
}

// ports names where the difference is: "tcp/80-90", or "any port".
func (d *Difference) ports() string {
	var texts []string
	for _, p := range d.Protos {
		r := l7rules.PortRange{Proto: p, First: d.First, Last: d.Last}
		if r.First <= 1 && r.Last == 65535 {
			r.First = 0
		}
		texts = append(texts, r.String())
	}
	if len(texts) == 3 && d.First <= 1 && d.Last == 65535 {
		return "any port"
	}
	return strings.Join(texts, ", ")
}

// because is the verdict with what decided, in one line.
func (a *Answer) because() string {
	text := a.Verdict.String()
	if s := &a.Egress; s.Judged && (!a.through() && !s.through() || a.through() && s.decides(&a.Ingress)) {
		return text + s.words("egress")
	}
	if s := &a.Ingress; s.Judged && (a.through() || !s.through()) {
		text += s.words("ingress")
	}
	return text
}

// decides reports whether s says more about why something got through than other does.
func (s *Side) decides(other *Side) bool {
	return !other.Judged || s.Policy != "" && other.Policy == ""
}

func (s *Side) words(name string) string {
	text := " by " + name
	if s.Policy != "" {
		text += " policy=" + s.Policy
		if s.Origin.Line > 0 {
			text += " at " + s.Origin.String()
		}
	}
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	if s.Nearest.Line > 0 {
		text += " (" + s.Nearest.String() + ")"
	}
	return text
}

// WriteJSON writes one object and a line end.
func (c *Comparison) WriteJSON(w io.Writer) error {
	type difference struct {
		Change    string   `json:"change"`
		Protocols []string `json:"protocols"`
		First     uint16   `json:"firstPort"`
		Last      uint16   `json:"lastPort"`
		Pairs     int      `json:"pairs"`
		Query     *Query   `json:"query"`
		Old       *Answer  `json:"old"`
		New       *Answer  `json:"new"`
	}
	out := struct {
		Differences []difference `json:"differences"`
		Unknown     []string     `json:"unknown,omitempty"`
	}{Differences: []difference{}, Unknown: c.Unknown}
	for i := range c.Differences {
		d := &c.Differences[i]
		change := "narrowed"
		if d.Widened {
			change = "widened"
		}
		out.Differences = append(out.Differences, difference{change, protocolNames(d.Protos), d.First, d.Last, d.Pairs, &d.Query, d.Old, d.New})
	}
	return writeJSON(w, out)
}

func protocolNames(protos []uint8) []string {
	var names []string
	for _, p := range protos {
		names = append(names, protocolName(p))
	}
	return names
}
