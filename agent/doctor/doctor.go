// Package doctor finds out whether this machine can run the kernel half of Weir, by
// trying each thing that it needs: distributions backport, so a version number says
// little.
package doctor

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
)

// State is the outcome of one check.
type State string

// States. The zero value is none of them, and not good.
const (
	OK      State = "ok"
	Missing State = "missing"
	Unknown State = "unknown" // could not be found out, for want of privileges
	Note    State = "note"    // good to know, nothing to fix
)

// Finding is one check and its outcome.
type Finding struct {
	State State  `json:"state"`
	What  string `json:"what"`
	// Detail is what was found: where it is, or why it is missing.
	Detail string `json:"detail,omitempty"`
	// Fix is how to get it.
	Fix string `json:"fix,omitempty"`
}

// Report is all findings, the most basic first.
type Report struct {
	Findings []Finding `json:"findings"`
}

// OK reports whether weir run can work here.
func (r *Report) OK() bool { return r.Reason() == "" }

// Reason is the first thing that is missing, in one line, and how to get it; "" if
// nothing is.
func (r *Report) Reason() string {
	for _, f := range r.Findings {
		if f.State == OK || f.State == Note {
			continue
		}
		text := f.What + ": " + cmp.Or(f.Detail, string(f.State), "not checked")
		if f.Fix != "" {
			text += ": " + f.Fix
		}
		return text
	}
	if len(r.Findings) == 0 {
		return "nothing was checked"
	}
	return ""
}

// WriteText writes a line per finding, and the sum in the last one.
func (r *Report) WriteText(w io.Writer) error {
	bad := 0
	for _, f := range r.Findings {
		if f.State != OK && f.State != Note {
			bad++
		}
		detail := ""
		if f.Detail != "" {
			detail = ": " + f.Detail
		}
		if _, err := fmt.Fprintf(w, "%-8s %s%s\n", f.State, f.What, detail); err != nil {
			return err
		}
		if f.Fix != "" {
			if _, err := fmt.Fprintf(w, "%-8s -> %s\n", "", f.Fix); err != nil {
				return err
			}
		}
	}
	sum := "Everything that weir run needs is here."
	if bad > 0 || len(r.Findings) == 0 {
		sum = fmt.Sprintf("weir run does not work here: %d missing or unknown. weir policy and weir gateway do.", bad)
	}
	_, err := fmt.Fprintln(w, sum)
	return err
}

// WriteJSON writes the report as one JSON object with the findings and the sum.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		OK     bool   `json:"ok"`
		Reason string `json:"reason,omitempty"`
		*Report
	}{r.OK(), r.Reason(), r})
}
