package doctor

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	bad := &Report{Findings: []Finding{
		{OK, "root", "", ""},
		{Note, "dead run 1-a", "the next weir run sweeps it up", ""},
		{Missing, "sk_lookup programs", "not supported", "a newer kernel"},
		{Unknown, "BPF file system", "", ""},
	}}
	for _, c := range []struct {
		name         string
		r            *Report
		ok           bool
		reason, text string
	}{
		{"good", &Report{Findings: bad.Findings[:2]}, true, "", `ok       root
note     dead run 1-a: the next weir run sweeps it up
Everything that weir run needs is here.
`},
		{"bad", bad, false, "sk_lookup programs: not supported: a newer kernel", `ok       root
note     dead run 1-a: the next weir run sweeps it up
missing  sk_lookup programs: not supported
         -> a newer kernel
unknown  BPF file system
weir run does not work here: 2 missing or unknown. weir policy and weir gateway do.
`},
		{"unknown is not good", &Report{Findings: bad.Findings[3:]}, false, "BPF file system: unknown", `unknown  BPF file system
weir run does not work here: 1 missing or unknown. weir policy and weir gateway do.
`},
		{"nothing", &Report{}, false, "nothing was checked", "weir run does not work here: 0 missing or unknown. weir policy and weir gateway do.\n"},
		{"the zero value is not good", &Report{Findings: []Finding{{What: "x"}}}, false, "x: not checked",
			"         x\nweir run does not work here: 1 missing or unknown. weir policy and weir gateway do.\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.r.OK() != c.ok || c.r.Reason() != c.reason {
				t.Errorf("OK %v, reason %q, want %v, %q", c.r.OK(), c.r.Reason(), c.ok, c.reason)
			}
			var text strings.Builder
			if err := c.r.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.text, text.String()); d != "" {
				t.Error(d)
			}
		})
	}
	var json strings.Builder
	if err := bad.WriteJSON(&json); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"ok": false`, `"reason": "sk_lookup programs: not supported: a newer kernel"`, `"state": "missing"`} {
		if !strings.Contains(json.String(), want) {
			t.Errorf("JSON lacks %s: %s", want, json.String())
		}
	}
}
