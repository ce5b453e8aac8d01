package identity

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Operator relates a label to the values of a requirement, as in Kubernetes'
// LabelSelectorRequirement.
type Operator uint8

// Operators. NotIn and DoesNotExist hold where the key is absent.
const (
	In Operator = iota
	NotIn
	Exists
	DoesNotExist
)

var operatorNames = [...]string{In: "In", NotIn: "NotIn", Exists: "Exists", DoesNotExist: "DoesNotExist"}

// String is the operator's name in a policy file.
func (o Operator) String() string {
	if int(o) < len(operatorNames) {
		return operatorNames[o]
	}
	return fmt.Sprintf("Operator(%d)", uint8(o))
}

// Operators are the names ParseOperator knows.
func Operators() []string { return slices.Clone(operatorNames[:]) }

// ParseOperator reads an operator's name.
func ParseOperator(s string) (Operator, bool) {
	i := slices.Index(operatorNames[:], s)
	return Operator(max(i, 0)), i >= 0
}

// Requirement is one condition of a selector.
type Requirement struct {
	Source string // "any" for a label of any source
	Key    string
	Op     Operator
	Values []string // In, NotIn: at least one; Exists, DoesNotExist: none
}

// ParseSelectorKey reads the key of a selector, "app" or "k8s:app". A bare key
// means any source.
func ParseSelectorKey(s string) (source, key string, err error) {
	source, key, ok := strings.Cut(s, ":")
	if !ok {
		source, key = SourceAny, s
	}
	if err := checkKey(source, key); err != nil {
		return "", "", fmt.Errorf("parse selector key %q: %w", s, err)
	}
	return source, key, nil
}

func (r *Requirement) matches(ls Labels) bool {
	var found, in bool
	if ls.set != nil {
		for i := range ls.set.labels {
			l := &ls.set.labels[i]
			if l.Key == r.Key && (r.Source == SourceAny || l.Source == r.Source) {
				found = true
				if slices.Contains(r.Values, l.Value) {
					in = true
					break
				}
			}
		}
	}
	switch r.Op {
	case In:
		return in
	case NotIn:
		return !in
	case Exists:
		return found
	case DoesNotExist:
		return !found
	}
	return false
}

// String is the requirement in the words of kubectl: k8s:app=a, app in (a,b), !app.
func (r Requirement) String() string {
	key := r.Key
	if r.Source != SourceAny {
		key = r.Source + ":" + key
	}
	switch {
	case r.Op == In && len(r.Values) == 1:
		return key + "=" + r.Values[0]
	case r.Op == In:
		return key + " in (" + strings.Join(r.Values, ",") + ")"
	case r.Op == NotIn:
		return key + " notin (" + strings.Join(r.Values, ",") + ")"
	case r.Op == DoesNotExist:
		return "!" + key
	}
	return key
}

// Selector is an immutable conjunction of requirements on a set of labels. The zero
// value selects every set.
type Selector struct {
	reqs []Requirement // sorted
	text string
}

// NewSelector makes a selector of all of reqs.
func NewSelector(reqs ...Requirement) (Selector, error) {
	own := make([]Requirement, len(reqs))
	for i, r := range reqs {
		if err := checkKey(r.Source, r.Key); err != nil {
			return Selector{}, fmt.Errorf("selector: %w", err)
		}
		switch values := len(r.Values) > 0; {
		case int(r.Op) >= len(operatorNames):
			return Selector{}, fmt.Errorf("selector: unknown operator %v", r.Op)
		case (r.Op == In || r.Op == NotIn) && !values:
			return Selector{}, fmt.Errorf("selector: %v on %q needs values", r.Op, r.Key)
		case (r.Op == Exists || r.Op == DoesNotExist) && values:
			return Selector{}, fmt.Errorf("selector: %v on %q takes no values", r.Op, r.Key)
		}
		r.Values = slices.Clone(r.Values)
		slices.Sort(r.Values)
		r.Values = slices.Compact(r.Values)
		own[i] = r
	}
	slices.SortStableFunc(own, func(a, b Requirement) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), strings.Compare(a.Key, b.Key),
			cmp.Compare(a.Op, b.Op), slices.Compare(a.Values, b.Values))
	})
	texts := make([]string, len(own))
	for i, r := range own {
		texts[i] = r.String()
	}
	return Selector{own, strings.Join(texts, ",")}, nil
}

// Matches reports whether labels fulfil every requirement. It does not allocate.
func (s Selector) Matches(ls Labels) bool {
	for i := range s.reqs {
		if !s.reqs[i].matches(ls) {
			return false
		}
	}
	return true
}

// Missing returns the requirements that labels do not fulfil.
func (s Selector) Missing(ls Labels) []Requirement {
	var missing []Requirement
	for _, r := range s.reqs {
		if !r.matches(ls) {
			missing = append(missing, r)
		}
	}
	return missing
}

// Requirements returns a copy of the requirements, sorted.
func (s Selector) Requirements() []Requirement { return slices.Clone(s.reqs) }

// String is the requirements with commas between, the same for equal selectors;
// "{}" for the one that selects every set.
func (s Selector) String() string {
	if len(s.reqs) == 0 {
		return "{}"
	}
	return s.text
}
