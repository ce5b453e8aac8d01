package cnp

import (
	"regexp"
	"strconv"
	"strings"
)

// lookalike are the plain words that some reader of YAML, 1.1 or 1.2, takes for something
// else than a string. A policy that two tools read differently is an error here.
var lookalike = regexp.MustCompile(`^(?:` + strings.Join([]string{
	`[-+]?[0-9][0-9_]*`, `[-+]?0[xX][0-9a-fA-F_]+`, `[-+]?0[oO]?[0-7_]+`, `[-+]?0[bB][01_]+`, // integers
	`[-+]?(?:[0-9][0-9_]*)?\.[0-9_]*(?:[eE][-+]?[0-9]+)?`, `[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+`, // floats
	`[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?`, // base 60
	`[-+]?\.(?:inf|Inf|INF)`, `\.(?:nan|NaN|NAN)`,
	`(?i:true|false|yes|no|on|off|y|n|null)`, `~`, `=`, `<<`,
	`[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?`,
}, "|") + `)$`)

// str reads a string. null is reported as any other value that is none.
func (r *reader) str(n *node, path string) (string, bool) {
	switch {
	case n.kind != kindScalar:
		r.errorf(n.pos, path, "must be a string, is %s", n.kind)
		return "", false
	case !n.quoted && n.folded:
		r.errorf(n.pos, path, "goes over more than one line: put it in quotes, on one")
		return "", false
	case !n.quoted && lookalike.MatchString(n.text):
		r.errorf(n.pos, path, "%s is no string: put it in quotes: %s", n.text, quote(n.text))
		return "", false
	case !n.quoted && (strings.ContainsAny(n.text[:min(1, len(n.text))], "@`%&*!|>'\"#,[]{}") || strings.Contains(n.text, ": ") || strings.Contains(n.text, " #")):
		r.errorf(n.pos, path, "%s: put it in quotes", quote(n.text))
		return "", false
	}
	if strings.ContainsAny(n.text, "\n\t") {
		r.errorf(n.pos, path, "%s holds a line end or a tab", quote(n.text))
		return "", false
	}
	return n.text, true
}

// integer reads a decimal number.
func (r *reader) integer(n *node, path string, lowest, highest int) (int, bool) {
	if n.kind != kindScalar || n.quoted {
		text := n.kind.String()
		if n.kind == kindScalar {
			text = quote(n.text)
		}
		r.errorf(n.pos, path, "must be a number without quotes, is %s", text)
		return 0, false
	}
	v, err := strconv.Atoi(n.text)
	if err != nil || n.text[0] == '+' || len(n.text) > 1 && strings.TrimLeft(n.text, "-")[0] == '0' {
		r.errorf(n.pos, path, "must be a decimal number, is %s", quote(n.text))
		return 0, false
	}
	if v < lowest || v > highest {
		r.errorf(n.pos, path, "%d is not from %d to %d", v, lowest, highest)
		return 0, false
	}
	return v, true
}

// boolean reads true or false.
func (r *reader) boolean(n *node, path string) (value, ok bool) {
	if n.kind == kindScalar && !n.quoted && (n.text == "true" || n.text == "false") {
		return n.text == "true", true
	}
	text := n.kind.String()
	if n.kind == kindScalar {
		text = quote(n.text)
	}
	r.errorf(n.pos, path, "must be true or false, is %s", text)
	return false, false
}

// list reads a list. Neither null nor a missing field is one: present is false.
func (r *reader) list(n *node, path string) (items []*node, present bool) {
	switch {
	case n == nil || n.kind == kindNull:
		return nil, false
	case n.kind != kindList:
		r.errorf(n.pos, path, "must be a list, is %s", n.kind)
		return nil, true
	}
	return n.items, true
}

// object is a mapping whose keys were all known.
type object struct {
	*node
	fields map[string]*node
}

// get returns a field that is there and not null, else nil.
func (o *object) get(name string) *node {
	if n := o.fields[name]; n != nil && n.kind != kindNull {
		return n
	}
	return nil
}

// object reads a mapping and reports every key that is not among known. With an unknown
// key the rest is still read, for its own errors.
func (r *reader) object(n *node, path string, known ...string) (*object, bool) {
	if n.kind != kindMap {
		r.errorf(n.pos, path, "must be a mapping, is %s", n.kind)
		return nil, false
	}
	o := &object{n, map[string]*node{}}
	for _, e := range n.entries {
		name := e.key.text
		switch {
		case r.duplicate(o, e, path):
		case contains(known, name):
			o.fields[name] = e.node
		default:
			r.errorf(e.key.pos, join(path, name), "%s", unknownField(name, known))
		}
	}
	return o, true
}

func (r *reader) duplicate(o *object, e entry, path string) bool {
	if first, ok := o.fields[e.key.text]; ok {
		r.errorf(e.key.pos, join(path, e.key.text), "duplicate key, first at line %d", first.line)
		return true
	}
	return false
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}
