package cnp

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of one file. They keep the YAML library, whose time and stack grow with
// tokens and nesting, within a second and a few hundred frames.
const (
	MaxFileLen = 1 << 20 // bytes
	maxTokens  = 200_000
	maxNesting = 40  // of [ and {
	maxIndent  = 200 // column of a block's key or dash
)

type pos struct{ line, column int }

type kind uint8

const (
	kindNull kind = iota
	kindScalar
	kindMap
	kindList
)

func (k kind) String() string {
	return [...]string{"nothing", "a value", "a mapping", "a list"}[k]
}

// node is a YAML value with its place, and nothing that needs a second look: no
// anchors, tags or merge keys, scalars as they are written.
type node struct {
	pos
	kind    kind
	text    string // scalar
	quoted  bool   // scalar: in quotes or a block, so a string whatever it looks like
	folded  bool   // plain scalar over more than one line
	entries []entry
	items   []*node
}

type entry struct {
	key  *node // scalar
	node *node
}

// parseYAML reads the documents of a file, empty ones left out. What is found wrong goes
// to r; the documents are then incomplete.
func (r *reader) parseYAML(data []byte) (docs []*node) {
	if len(data) > MaxFileLen {
		r.errorf(pos{}, "", "%d bytes: at most %d in one file", len(data), MaxFileLen)
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	if !r.checkText(data) {
		return nil
	}
	// The library is not ours: what it does with input nobody thought of must be an
	// error, not the end of the process.
	defer func() {
		if v := recover(); v != nil {
			docs = nil
			r.errorf(pos{}, "", "no YAML that can be read: %v", v)
		}
	}()
	tokens := lexer.Tokenize(string(data))
	if !r.checkTokens(tokens) {
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var ye yaml.Error
		if errors.As(err, &ye) && ye.GetToken() != nil {
			r.errorf(position(ye.GetToken()), "", "no YAML: %s", ye.GetMessage())
		} else {
			r.errorf(pos{}, "", "no YAML: %v", err)
		}
		return nil
	}
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		if n := r.convert(d.Body); n != nil && n.kind != kindNull {
			docs = append(docs, n)
		}
	}
	return docs
}

// checkText refuses what YAML does not allow in a file at all.
func (r *reader) checkText(data []byte) bool {
	line, start := 1, 0
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		p := pos{line, utf8.RuneCount(data[start:i]) + 1}
		switch {
		case c == utf8.RuneError && size == 1:
			r.errorf(p, "", "byte 0x%02x is no UTF-8", data[i])
			return false
		case c == '\n':
			line, start = line+1, i+1
		case c == '\t':
			if len(bytes.TrimLeft(data[start:i], " \t")) == 0 {
				r.errorf(p, "", "a tab indents this line: use blanks")
				return false
			}
		case c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 || c == 0x2028 || c == 0x2029 || c == 0xfeff:
			r.errorf(p, "", "control character U+%04X", c)
			return false
		}
		i += size
	}
	return true
}

// checkTokens refuses what would be too much to parse, and what has no place in a policy:
// a file should mean what stands at the place where one reads it.
func (r *reader) checkTokens(tokens token.Tokens) bool {
	if len(tokens) > maxTokens {
		r.errorf(position(tokens[maxTokens]), "", "more than %d YAML tokens: split the file", maxTokens)
		return false
	}
	depth := 0
	for _, t := range tokens {
		p := position(t)
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			r.errorf(p, "", "anchors, aliases and merge keys are not supported: write the value out")
			return false
		case token.TagType:
			r.errorf(p, "", "YAML tags are not supported: leave %s out", quote(t.Value))
			return false
		case token.DirectiveType:
			r.errorf(p, "", "YAML directives are not supported: leave the line out")
			return false
		case token.SequenceStartType, token.MappingStartType:
			if depth++; depth > maxNesting {
				r.errorf(p, "", "nested more than %d deep", maxNesting)
				return false
			}
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType, token.MappingValueType:
			if depth <= 0 && p.column > maxIndent {
				r.errorf(p, "", "key or list entry beyond column %d: nested too deep, or too long", maxIndent)
				return false
			}
		}
	}
	return true
}

func position(t *token.Token) pos {
	if t == nil || t.Position == nil {
		return pos{}
	}
	return pos{t.Position.Line, t.Position.Column}
}

// convert copies the library's tree into ours.
func (r *reader) convert(n ast.Node) *node {
	switch n := n.(type) {
	case *ast.NullNode:
		return &node{pos: position(n.Token)}
	case *ast.StringNode:
		return scalar(n.Token, n.Value)
	case *ast.LiteralNode:
		return &node{pos: position(n.Start), kind: kindScalar, text: n.Value.Value, quoted: true}
	case *ast.IntegerNode:
		return scalar(n.Token, n.Token.Value)
	case *ast.FloatNode:
		return scalar(n.Token, n.Token.Value)
	case *ast.BoolNode:
		return scalar(n.Token, n.Token.Value)
	case *ast.InfinityNode:
		return scalar(n.Token, n.Token.Value)
	case *ast.NanNode:
		return scalar(n.Token, n.Token.Value)
	case *ast.MappingNode:
		m := &node{pos: position(n.Start), kind: kindMap}
		for _, v := range n.Values {
			r.convertEntry(m, v)
		}
		if len(m.entries) > 0 && !n.IsFlowStyle {
			m.pos = m.entries[0].key.pos
		}
		return m
	case *ast.MappingValueNode:
		m := &node{pos: position(n.Key.GetToken()), kind: kindMap}
		r.convertEntry(m, n)
		return m
	case *ast.SequenceNode:
		l := &node{pos: position(n.Start), kind: kindList}
		for _, v := range n.Values {
			if item := r.convert(v); item != nil {
				l.items = append(l.items, item)
			}
		}
		return l
	}
	var t *token.Token
	what := "this"
	if n != nil {
		t, what = n.GetToken(), strings.ToLower(n.Type().String())
	}
	r.errorf(position(t), "", "no YAML that can be read: %s", what)
	return nil
}

func (r *reader) convertEntry(m *node, v *ast.MappingValueNode) {
	key := r.convert(v.Key)
	if key == nil || key.kind != kindScalar {
		r.errorf(position(v.Start), "", "a key must be a word")
		return
	}
	value := r.convert(v.Value)
	if value == nil {
		return
	}
	if value.line == 0 {
		value.pos = key.pos
	}
	m.entries = append(m.entries, entry{key, value})
}

func scalar(t *token.Token, text string) *node {
	n := &node{pos: position(t), kind: kindScalar, text: text}
	n.quoted = t.Type == token.SingleQuoteType || t.Type == token.DoubleQuoteType
	n.folded = !n.quoted && strings.Contains(strings.TrimSpace(t.Origin), "\n")
	return n
}

// index is the path of a list's item.
func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// join is the path of a mapping's field.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
