package cnp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
)

// Error is one thing wrong in a policy file.
type Error struct {
	Origin l7rules.Origin
	Path   string // of the field, "spec.egress[0].toPorts"; "" for the file
	Text   string // why, and what to write instead
}

// Error is "file:line:column: path: text".
func (e *Error) Error() string { return format(e.Origin, e.Path, e.Text) }

// Errors is everything wrong in a policy file, in the order of the file.
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

// Warning is something in a policy file that means what it says and is perhaps not
// meant.
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

// reader collects what is found in one file.
type reader struct {
	file     string
	errs     Errors
	warnings []Warning
	cost     int // of the patterns so far
}

func (r *reader) errorf(p pos, path, format string, args ...any) {
	r.errs = append(r.errs, &Error{r.origin(p), path, fmt.Sprintf(format, args...)})
}

func (r *reader) warnf(p pos, path, format string, args ...any) {
	r.warnings = append(r.warnings, Warning{r.origin(p), path, fmt.Sprintf(format, args...)})
}

func (r *reader) origin(p pos) l7rules.Origin {
	return l7rules.Origin{File: r.file, Line: p.line, Column: p.column}
}

// sortErrors brings errors into the order of the file.
func sortErrors(es Errors) {
	slices.SortStableFunc(es, func(a, b *Error) int {
		if a.Origin.Line != b.Origin.Line {
			return a.Origin.Line - b.Origin.Line
		}
		return a.Origin.Column - b.Origin.Column
	})
}

// quote writes a value for an error: quoted, and not without end.
func quote(s string) string {
	const most = 100
	if len(s) > most {
		return fmt.Sprintf("%q...", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
