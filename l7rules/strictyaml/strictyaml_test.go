package strictyaml

import (
	"errors"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// read reads a document of fields that show each kind of value.
func read(data string) (string, error) {
	r := &Reader{File: "f.yaml", MaxLen: 4096, Hints: map[string]string{"no": "never"}}
	var b strings.Builder
	for _, doc := range r.Documents([]byte(data)) {
		o, ok := r.Object(doc, "", "string", "number", "flag", "list", "map")
		if !ok {
			continue
		}
		if n := o.Get("string"); n != nil {
			s, _ := r.String(n, "string")
			b.WriteString(s)
		}
		if n := o.Get("number"); n != nil {
			r.Integer(n, "number", -5, 5)
		}
		if n := o.Get("flag"); n != nil {
			r.Boolean(n, "flag")
		}
		items, _ := r.List(o.Get("list"), "list")
		for i, item := range items {
			r.String(item, Index("list", i))
		}
		if n := o.Get("map"); n != nil {
			r.Object(n, "map", "string")
		}
	}
	return b.String(), r.Err()
}

var cases = txtar.Parse([]byte(`
-- good --
string: a b
number: -5
flag: true
list: ["5", a]
map: {string: b}
want: a b
-- block --
string: |-
  a
want: a
-- crlf --
string: a
want: a
-- number --
string: 5
want: f.yaml:1:9: string: 5 is no string: put it in quotes: "5"
-- sexagesimal --
string: 12:30
want: f.yaml:1:9: string: 12:30 is no string: put it in quotes: "12:30"
-- word --
string: yes
want: f.yaml:1:9: string: yes is no string: put it in quotes: "yes"
-- folded --
string: a
  b
want: f.yaml:1:9: string: goes over more than one line: put it in quotes, on one
-- line end --
string: "a\nb"
want: f.yaml:1:9: string: "a\nb" holds a line end or a tab
-- octal --
number: 010
want: f.yaml:1:9: number: must be a decimal number, is "010"
-- plus --
number: +1
want: f.yaml:1:9: number: must be a decimal number, is "+1"
-- quoted number --
number: "1"
want: f.yaml:1:9: number: must be a number without quotes, is "1"
-- range --
number: 6
want: f.yaml:1:9: number: 6 is not from -5 to 5
-- flag --
flag: True
want: f.yaml:1:7: flag: must be true or false, is "True"
-- no list --
list: a
want: f.yaml:1:7: list: must be a list, is a value
-- item --
list: [a, [b]]
want: f.yaml:1:11: list[1]: must be a string, is a list
-- map --
map: {string: a, string: b, strng: c}
want: f.yaml:1:18: map.string: duplicate key, first at line 1
f.yaml:1:29: map.strng: unknown field: did you mean string?
-- hint --
no: 1
want: f.yaml:1:1: no: never
-- key of bytes --
"a\x1bb": 1
want: f.yaml:1:1: "a\x1bb": unknown field: one of string, number, flag, list, map
-- merge --
map: {<<: {string: a}}
want: f.yaml:1:7: map.<<: unknown field: one of string
-- anchor --
string: &a b
want: f.yaml:1:9: anchors and aliases are not supported: write the value out
-- tag --
string: !!str 5
want: f.yaml:1:9: YAML tags are not supported: leave "!!str" out
-- tab --
map:
	string: a
want: f.yaml:2:1: a tab indents this line: use blanks
-- not YAML --
map: {
want: f.yaml:1: no YAML: did not find expected node content
-- in the order of the file --
list: [[a]]
string: 5
number: x
want: f.yaml:1:8: list[0]: must be a string, is a list
f.yaml:2:9: string: 5 is no string: put it in quotes: "5"
f.yaml:3:9: number: must be a decimal number, is "x"
`))

func TestRead(t *testing.T) {
	for _, f := range cases.Files {
		t.Run(f.Name, func(t *testing.T) {
			data, want, _ := strings.Cut(string(f.Data), "want: ")
			if f.Name == "crlf" {
				data = "\ufeff" + strings.ReplaceAll(data, "\n", "\r\n")
			}
			got, err := read(data)
			if err != nil {
				got = err.Error()
			}
			if got != strings.TrimSpace(want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	for name, c := range map[string]struct{ data, want string }{
		"length":     {strings.Repeat("a", 4097), "f.yaml: 4097 bytes: at most 4096 in one file"},
		"no UTF-8":   {"string: a\xff", "f.yaml:1:10: byte 0xff is no UTF-8"},
		"control":    {"string: a\x1b", "f.yaml:1:10: control character U+001B"},
		"long key":   {strings.Repeat("k", 500) + ": 1", `k"...: unknown field`},
		"many":       {"list: [" + strings.Repeat("5,", 70) + "]", "and 20 more"},
		"long value": {"string: 5" + strings.Repeat("0", 300), `0"...`},
	} {
		_, err := read(c.data)
		var es Errors
		if !errors.As(err, &es) || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 8000 {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// FuzzRead looks for a panic and for errors that cannot stand in one line.
func FuzzRead(f *testing.F) {
	for _, file := range cases.Files {
		data, _, _ := strings.Cut(string(file.Data), "want: ")
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data string) {
		_, err := read(data)
		var es Errors
		if err != nil && !errors.As(err, &es) {
			t.Fatalf("error %v", err)
		}
		for _, e := range es {
			if strings.ContainsAny(e.Error(), "\r\n\x1b") || e.Text == "" || e.Origin.Line > strings.Count(data, "\n")+1 {
				t.Fatalf("error %q", e.Error())
			}
		}
	})
}
