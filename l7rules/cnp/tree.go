package cnp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// MaxFileLen is the size of the largest policy file, in bytes. The YAML library takes less
// than a second for any input of this size and does not nest deeper than 10,000.
const MaxFileLen = 1 << 20

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
	source := &source{lines: strings.Split(string(data), "\n")}
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			r.syntaxError(err)
			return nil
		}
		before := len(r.errs)
		if n := r.convert(&doc, source); n != nil && n.kind != kindNull && len(r.errs) == before {
			docs = append(docs, n)
		}
	}
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?`)

// syntaxError reports what the library found. It tells the line in its message only.
func (r *reader) syntaxError(err error) {
	text := err.Error()
	m := syntaxLine.FindStringSubmatch(text)
	if m == nil {
		m = []string{"", ""}
	}
	line, _ := strconv.Atoi(m[1])
	r.errorf(pos{line: line}, "", "no YAML: %s", text[len(m[0]):])
}

// checkText refuses what YAML does not allow in a file at all.
func (r *reader) checkText(data []byte) bool {
	p, indent := pos{1, 1}, true // indent: nothing but blanks so far in the line
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		switch {
		case c == utf8.RuneError && size == 1:
			r.errorf(p, "", "byte 0x%02x is no UTF-8", data[i])
			return false
		case c == '\t' && indent:
			r.errorf(p, "", "a tab indents this line: use blanks")
			return false
		case c < ' ' && c != '\n' && c != '\t' || c == 0x7f || c >= 0x80 && c < 0xa0 || c == 0x2028 || c == 0x2029 || c == 0xfeff:
			r.errorf(p, "", "control character U+%04X", c)
			return false
		}
		i += size
		p.column++
		indent = indent && c == ' '
		if c == '\n' {
			p, indent = pos{p.line + 1, 1}, true
		}
	}
	return true
}

// convert copies the library's tree into ours. What has no place in a policy, because a file
// should mean what stands at the place where one reads it, is refused.
func (r *reader) convert(n *yaml.Node, source *source) *node {
	c := &node{pos: pos{n.Line, n.Column}}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.errorf(c.pos, "", "anchors and aliases are not supported: write the value out")
		return nil
	case n.Style&yaml.TaggedStyle != 0:
		r.errorf(c.pos, "", "YAML tags are not supported: leave %s out", quote(n.Tag))
		return nil
	}
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) != 1 {
			return nil
		}
		return r.convert(n.Content[0], source)
	case yaml.ScalarNode:
		const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
		c.kind, c.text, c.quoted = kindScalar, n.Value, n.Style&quoted != 0
		if !c.quoted && n.Tag == "!!null" {
			c.kind = kindNull
		}
		c.folded = !c.quoted && !source.holds(c.pos, c.text)
	case yaml.MappingNode:
		c.kind = kindMap
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := r.convert(n.Content[i], source), r.convert(n.Content[i+1], source)
			switch {
			case key == nil || value == nil:
			case key.kind != kindScalar:
				r.errorf(key.pos, "", "a key must be a word, is %s", key.kind)
			default:
				c.entries = append(c.entries, entry{key, value})
			}
		}
	case yaml.SequenceNode:
		c.kind = kindList
		for _, item := range n.Content {
			if item := r.convert(item, source); item != nil {
				c.items = append(c.items, item)
			}
		}
	default:
		r.errorf(c.pos, "", "no YAML that can be read")
		return nil
	}
	return c
}

// source is the text of a file, looked up by position. Looking from the beginning to the
// end takes one pass over it.
type source struct {
	lines []string
	pos       // of the last lookup
	at    int // its byte in the line
}

// holds reports whether text is what stands at p, so that reading it joined no lines.
func (s *source) holds(p pos, text string) bool {
	if p.line < 1 || p.line > len(s.lines) {
		return false
	}
	if p.line != s.line || p.column < s.column {
		s.pos, s.at = pos{p.line, 1}, 0
	}
	line := s.lines[p.line-1]
	for ; s.column < p.column; s.column++ {
		_, size := utf8.DecodeRuneInString(line[s.at:])
		s.at += size
	}
	return strings.HasPrefix(line[s.at:], text)
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
