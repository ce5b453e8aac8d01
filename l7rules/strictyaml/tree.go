package strictyaml

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Pos is a place in a file. Lines and columns count from 1; 0 is unknown.
type Pos struct{ Line, Column int }

// Kind is what a value is.
type Kind uint8

// Kinds.
const (
	Null Kind = iota
	Scalar
	Map
	List
)

// String names a kind for an error.
func (k Kind) String() string {
	return [...]string{"nothing", "a value", "a mapping", "a list"}[k]
}

// Node is a YAML value with its place, and nothing that needs a second look: no
// anchors, tags or merge keys, scalars as they are written.
type Node struct {
	Pos
	Kind    Kind
	Text    string // Scalar
	Quoted  bool   // Scalar: in quotes or a block, so a string whatever it looks like
	Folded  bool   // plain Scalar over more than one line
	Entries []Entry
	Items   []*Node
}

// Entry is one key of a mapping and its value. The key is a Scalar.
type Entry struct{ Key, Value *Node }

// Documents reads the documents of a file, empty ones left out. After an error they are
// incomplete.
//
// For a file of 1 MiB the YAML library takes less than a second whatever is in it, and
// it does not nest deeper than 10,000.
func (r *Reader) Documents(data []byte) (docs []*Node) {
	if len(data) > r.MaxLen {
		r.Errorf(Pos{}, "", "%d bytes: at most %d in one file", len(data), r.MaxLen)
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
			r.Errorf(Pos{}, "", "no YAML that can be read: %v", v)
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
		if n := r.convert(&doc, source); n != nil && n.Kind != Null && len(r.errs) == before {
			docs = append(docs, n)
		}
	}
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?`)

// syntaxError reports what the library found. It tells the line in its message only.
func (r *Reader) syntaxError(err error) {
	text := err.Error()
	m := syntaxLine.FindStringSubmatch(text)
	if m == nil {
		m = []string{"", ""}
	}
	line, _ := strconv.Atoi(m[1])
	r.Errorf(Pos{Line: line}, "", "no YAML: %s", text[len(m[0]):])
}

// checkText refuses what YAML does not allow in a file at all.
func (r *Reader) checkText(data []byte) bool {
	p, indent := Pos{1, 1}, true // indent: nothing but blanks so far in the line
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		switch {
		case c == utf8.RuneError && size == 1:
			r.Errorf(p, "", "byte 0x%02x is no UTF-8", data[i])
			return false
		case c == '\t' && indent:
			r.Errorf(p, "", "a tab indents this line: use blanks")
			return false
		case c < ' ' && c != '\n' && c != '\t' || c == 0x7f || c >= 0x80 && c < 0xa0 || c == 0x2028 || c == 0x2029 || c == 0xfeff:
			r.Errorf(p, "", "control character U+%04X", c)
			return false
		}
		i += size
		p.Column++
		indent = indent && c == ' '
		if c == '\n' {
			p, indent = Pos{p.Line + 1, 1}, true
		}
	}
	return true
}

// convert copies the library's tree into ours. What has no place here, because a file
// should mean what stands at the place where one reads it, is refused.
func (r *Reader) convert(n *yaml.Node, source *source) *Node {
	c := &Node{Pos: Pos{n.Line, n.Column}}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.Errorf(c.Pos, "", "anchors and aliases are not supported: write the value out")
		return nil
	case n.Style&yaml.TaggedStyle != 0:
		r.Errorf(c.Pos, "", "YAML tags are not supported: leave %s out", Quote(n.Tag))
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
		c.Kind, c.Text, c.Quoted = Scalar, n.Value, n.Style&quoted != 0
		if !c.Quoted && n.Tag == "!!null" {
			c.Kind = Null
		}
		c.Folded = !c.Quoted && !source.holds(c.Pos, c.Text)
	case yaml.MappingNode:
		c.Kind = Map
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := r.convert(n.Content[i], source), r.convert(n.Content[i+1], source)
			switch {
			case key == nil || value == nil:
			case key.Kind != Scalar:
				r.Errorf(key.Pos, "", "a key must be a word, is %s", key.Kind)
			default:
				c.Entries = append(c.Entries, Entry{key, value})
			}
		}
	case yaml.SequenceNode:
		c.Kind = List
		for _, item := range n.Content {
			if item := r.convert(item, source); item != nil {
				c.Items = append(c.Items, item)
			}
		}
	default:
		r.Errorf(c.Pos, "", "no YAML that can be read")
		return nil
	}
	return c
}

// source is the text of a file, looked up by position. Looking from the beginning to the
// end takes one pass over it.
type source struct {
	lines []string
	Pos       // of the last lookup
	at    int // its byte in the line
}

// holds reports whether text is what stands at p, so that reading it joined no lines.
func (s *source) holds(p Pos, text string) bool {
	if p.Line < 1 || p.Line > len(s.lines) {
		return false
	}
	if p.Line != s.Line || p.Column < s.Column {
		s.Pos, s.at = Pos{p.Line, 1}, 0
	}
	line := s.lines[p.Line-1]
	for ; s.Column < p.Column; s.Column++ {
		_, size := utf8.DecodeRuneInString(line[s.at:])
		s.at += size
	}
	return strings.HasPrefix(line[s.at:], text)
}
