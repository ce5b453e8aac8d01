package strictyaml

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// lookalike are the plain words that some reader of YAML, 1.1 or 1.2, takes for something
// else than a string. A file that two tools read differently is an error here.
var lookalike = regexp.MustCompile(`^(?:` + strings.Join([]string{
	`[-+]?[0-9][0-9_]*`, `[-+]?0[xX][0-9a-fA-F_]+`, `[-+]?0[oO]?[0-7_]+`, `[-+]?0[bB][01_]+`, // integers
	`[-+]?(?:[0-9][0-9_]*)?\.[0-9_]*(?:[eE][-+]?[0-9]+)?`, `[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+`, // floats
	`[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?`, // base 60
	`[-+]?\.(?:inf|Inf|INF)`, `\.(?:nan|NaN|NAN)`,
	`(?i:true|false|yes|no|on|off|y|n|null)`, `~`, `=`, `<<`,
	`[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?`,
}, "|") + `)$`)

// String reads a string. null is reported as any other value that is none.
func (r *Reader) String(n *Node, path string) (string, bool) {
	switch {
	case n.Kind != Scalar:
		r.Errorf(n.Pos, path, "must be a string, is %s", n.Kind)
		return "", false
	case !n.Quoted && n.Folded:
		r.Errorf(n.Pos, path, "goes over more than one line: put it in quotes, on one")
		return "", false
	case !n.Quoted && lookalike.MatchString(n.Text):
		r.Errorf(n.Pos, path, "%s is no string: put it in quotes: %s", n.Text, Quote(n.Text))
		return "", false
	case !n.Quoted && (strings.ContainsAny(n.Text[:min(1, len(n.Text))], "@`%&*!|>'\"#,[]{}") || strings.Contains(n.Text, ": ") || strings.Contains(n.Text, " #")):
		r.Errorf(n.Pos, path, "%s: put it in quotes", Quote(n.Text))
		return "", false
	}
	if strings.ContainsAny(n.Text, "\n\t") {
		r.Errorf(n.Pos, path, "%s holds a line end or a tab", Quote(n.Text))
		return "", false
	}
	return n.Text, true
}

// Integer reads a decimal number, from lowest to highest.
func (r *Reader) Integer(n *Node, path string, lowest, highest int) (int, bool) {
	if n.Kind != Scalar || n.Quoted {
		text := n.Kind.String()
		if n.Kind == Scalar {
			text = Quote(n.Text)
		}
		r.Errorf(n.Pos, path, "must be a number without quotes, is %s", text)
		return 0, false
	}
	v, err := strconv.Atoi(n.Text)
	if err != nil || n.Text[0] == '+' || len(n.Text) > 1 && strings.TrimLeft(n.Text, "-")[0] == '0' {
		r.Errorf(n.Pos, path, "must be a decimal number, is %s", Quote(n.Text))
		return 0, false
	}
	if v < lowest || v > highest {
		r.Errorf(n.Pos, path, "%d is not from %d to %d", v, lowest, highest)
		return 0, false
	}
	return v, true
}

// Boolean reads true or false.
func (r *Reader) Boolean(n *Node, path string) (value, ok bool) {
	if n.Kind == Scalar && !n.Quoted && (n.Text == "true" || n.Text == "false") {
		return n.Text == "true", true
	}
	text := n.Kind.String()
	if n.Kind == Scalar {
		text = Quote(n.Text)
	}
	r.Errorf(n.Pos, path, "must be true or false, is %s", text)
	return false, false
}

// List reads a list. Neither null nor a missing field is one: present is false.
func (r *Reader) List(n *Node, path string) (items []*Node, present bool) {
	switch {
	case n == nil || n.Kind == Null:
		return nil, false
	case n.Kind != List:
		r.Errorf(n.Pos, path, "must be a list, is %s", n.Kind)
		return nil, true
	}
	return n.Items, true
}

// Object is a mapping whose keys were all known.
type Object struct {
	*Node
	Fields map[string]*Node
}

// Get returns a field that is there and not null, else nil.
func (o *Object) Get(name string) *Node {
	if n := o.Fields[name]; n != nil && n.Kind != Null {
		return n
	}
	return nil
}

// Object reads a mapping and reports every key that is not among known. With an unknown
// key the rest is still read, for its own errors.
func (r *Reader) Object(n *Node, path string, known ...string) (*Object, bool) {
	if n.Kind != Map {
		r.Errorf(n.Pos, path, "must be a mapping, is %s", n.Kind)
		return nil, false
	}
	o := &Object{n, map[string]*Node{}}
	for _, e := range n.Entries {
		name := e.Key.Text
		switch {
		case r.duplicate(o, e, path):
		case slices.Contains(known, name):
			o.Fields[name] = e.Value
		default:
			r.Errorf(e.Key.Pos, Join(path, name), "%s", r.unknownField(name, known))
		}
	}
	return o, true
}

func (r *Reader) duplicate(o *Object, e Entry, path string) bool {
	if first, ok := o.Fields[e.Key.Text]; ok {
		r.Errorf(e.Key.Pos, Join(path, e.Key.Text), "duplicate key, first at line %d", first.Line)
		return true
	}
	return false
}
