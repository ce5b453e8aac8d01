package cnp

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

const good = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\nspec: {endpointSelector: {}, egress: [{}]}\n"

// Whatever a file holds, reading it ends soon, with an error.
func TestHostileFiles(t *testing.T) {
	fill := func(s string) string { return strings.Repeat(s, MaxFileLen/len(s)) }
	numbered := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	bomb := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'z'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	rules := strings.TrimSuffix(good, "[{}]}\n") + "[{toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {http: ["
	for name, file := range map[string]struct{ data, want string }{
		"10 MiB":         {strings.Repeat(good+"---\n", 10<<20/len(good)), "at most 1048576"},
		"alias bomb":     {bomb, "anchors and aliases are not supported"},
		"opened":         {fill("["), "no YAML"},
		"opened maps":    {fill("{a: "), "no YAML"},
		"dashes":         {fill("- "), ""},
		"questions":      {fill("? "), ""},
		"flow":           {"a: [" + fill("b,")[16:] + "]", ""},
		"flow map":       {good + "x: {" + fill("b: c, ")[200:] + "}", ""},
		"one key":        {fill("k: v\n"), ""},
		"documents":      {fill("---\na: b\n"), ""},
		"long line":      {good + "x: [" + fill("\u00e9, ")[200:] + "]", ""},
		"comments":       {fill("# x\n"), "no policy in this file"},
		"unended string": {"a: '" + fill("x")[16:], "no YAML"},
		"patterns":       {rules + numbered("{path: \"/%da{1000}\"}, ", 10000) + "]}}]}]}\n", "too large together"},
		// Each of these would be an automaton without end.
		"exploding patterns": {rules + numbered("{path: \"/%d(a|b)*a(a|b){60}\"}, ", 10000) + "]}}]}]}\n", "too large together"},
		"one pattern":        {rules + "{path: \"/" + strings.Repeat("a", 5000) + "\"}]}}]}]}\n", "too large"},
		"nested pattern":     {rules + "{path: \"/" + strings.Repeat("(", 990) + strings.Repeat("a{2})", 990) + "\"}]}}]}]}\n", "no regular expression"},
		"NUL":                {good + "\x00", "control character U+0000"},
		"escape":             {good + "# \x1b[2J", "control character U+001B"},
		"Latin-1":            {good + "# \xe9", "byte 0xe9 is no UTF-8"},
		"UTF-16":             {"\xff\xfea\x00", "is no UTF-8"},
		"line separator":     {good + "# \u2028", "control character U+2028"},
		"tab":                {good + "\tx: y", "a tab indents this line"},
		"tag":                {strings.Replace(good, "[{}]", "!!seq [{}]", 1), "YAML tags are not supported"},
		"merge key":          {good + "<<: {a: b}\n", "unknown field"},
		"folded":             {strings.Replace(good, "name: p", "name: p\n  q", 1), "more than one line"},
		"yes":                {strings.Replace(good, "name: p", "name: yes", 1), "put it in quotes"},
		"base 60":            {strings.Replace(good, "name: p", "name: 1:30", 1), "put it in quotes"},
		"octal":              {strings.Replace(good, "name: p", "name: 010", 1), "put it in quotes"},
		"date":               {strings.Replace(good, "name: p", "name: 2024-01-02", 1), "put it in quotes"},
		"null name":          {strings.Replace(good, "name: p", "name: ~", 1), "metadata.name: missing"},
		"line in quotes":     {strings.Replace(good, "name: p", `name: "p\nq"`, 1), "line end"},
		"list as key":        {good + "? [a]\n: b\n", "a key must be a word"},
		"escape in name":     {strings.Replace(good, "name: p", `name: "\e[2J"`, 1), "is no name"},
	} {
		t.Run(name, func(t *testing.T) {
			runtime.GC() // what others left behind is not this file's
			begin := cpuTime()
			policies, _, err := Parse("f.yaml", []byte(file.data))
			if err == nil || policies != nil || !strings.Contains(err.Error(), file.want) {
				t.Errorf("error %.300v, want one with %q", err, file.want)
			}
			if err != nil && (len(err.Error()) > 64<<10 || strings.Contains(err.Error(), "\x1b")) {
				t.Errorf("error of %d bytes: %.200q", len(err.Error()), err.Error())
			}
			// Anything a person writes takes a millisecond. A second is for what is hostile,
			// and three for a million bytes of brackets and commas.
			bar := time.Second
			if name == "flow" || name == "flow map" || name == "exploding patterns" || name == "documents" || name == "one key" || name == "long line" {
				bar = 3 * time.Second
			}
			took := cpuTime() - begin
			t.Logf("took %v", took)
			if took > slow*bar {
				t.Errorf("took %v, at most %v", took, bar)
			}
		})
	}
	if _, _, err := Parse("f.yaml", []byte("\ufeff"+strings.ReplaceAll(good, "\n", "\r\n"))); err != nil {
		t.Errorf("a byte order mark and CRLF: %v", err)
	}
}
