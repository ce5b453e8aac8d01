// Package strictyaml reads YAML files that must mean what they look like: with the
// place of every value, and an error for whatever is unknown, repeated, or read
// differently by different readers of YAML. It performs no I/O.
//
// A Reader collects everything that is wrong with one file: its methods report an
// error and return false, and the caller goes on with the rest.
package strictyaml

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/weir-proxy/weir/l7rules"
)

// Error is one thing wrong in a file.
type Error struct {
	Origin l7rules.Origin
	Path   string // of the field, "spec.egress[0].toPorts"; "" for the file
	Text   string // why, and what to write instead
}

// Error is "file:line:column: path: text".
func (e *Error) Error() string { return format(e.Origin, e.Path, e.Text) }

// Errors is everything wrong in a file, in its order.
type Errors []*Error

// maxErrors bounds what Errors.Error writes.
const maxErrors = 50

// Error has one line for each error.
func (es Errors) Error() string {
	var lines []string
	for i, e := range es {
		if i == maxErrors {
			lines = append(lines, fmt.Sprintf("and %d more", len(es)-i))
			break
		}
		lines = append(lines, e.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find each error.
func (es Errors) Unwrap() []error {
	all := make([]error, len(es))
	for i, e := range es {
		all[i] = e
	}
	return all
}

// Warning is something in a file that means what it says and is perhaps not meant.
type Warning struct {
	Origin l7rules.Origin
	Path   string
	Text   string
}

// String is "file:line:column: path: text".
func (w Warning) String() string { return format(w.Origin, w.Path, w.Text) }

func format(o l7rules.Origin, path, text string) string {
	if path == "" {
		return o.String() + ": " + text
	}
	return o.String() + ": " + path + ": " + text
}

// Reader collects what is found in one file.
type Reader struct {
	File     string // for messages
	MaxLen   int    // of the file, in bytes
	Warnings []Warning
	// Hints say, by the name of a field that people expect where it is unknown, what
	// to write instead.
	Hints map[string]string

	errs Errors
}

// Errorf reports an error at a place. Path names the field, "" for the file.
func (r *Reader) Errorf(p Pos, path, format string, args ...any) {
	r.errs = append(r.errs, &Error{r.Origin(p), path, fmt.Sprintf(format, args...)})
}

// Warnf reports a warning at a place.
func (r *Reader) Warnf(p Pos, path, format string, args ...any) {
	r.Warnings = append(r.Warnings, Warning{r.Origin(p), path, fmt.Sprintf(format, args...)})
}

// Origin is a place in the file.
func (r *Reader) Origin(p Pos) l7rules.Origin {
	return l7rules.Origin{File: r.File, Line: p.Line, Column: p.Column}
}

// Failed is the number of errors so far.
func (r *Reader) Failed() int { return len(r.errs) }

// Last is the latest error, for whoever knows better what to write instead. There must
// be one.
func (r *Reader) Last() *Error { return r.errs[len(r.errs)-1] }

// Err is every error so far in the order of the file, of type Errors, or nil.
func (r *Reader) Err() error {
	if len(r.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(r.errs, func(a, b *Error) int {
		return cmp.Or(a.Origin.Line-b.Origin.Line, a.Origin.Column-b.Origin.Column)
	})
	return r.errs
}

// Quote writes a value for an error: quoted, and not without end.
func Quote(s string) string {
	const most = 100
	if len(s) > most {
		return fmt.Sprintf("%q...", s[:most])
	}
	return fmt.Sprintf("%q", s)
}

// maxName bounds the name of a field in a message.
const maxName = 400

// Index is the path of a list's item.
func Index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// Join is the path of a mapping's field. A name that could not stand in one line of a
// message is quoted.
func Join(path, name string) string {
	if strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }) || len(name) > maxName {
		name = Quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}
