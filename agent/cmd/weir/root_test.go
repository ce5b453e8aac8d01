package main

import (
	"context"
	"runtime/debug"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args           string
		code           int
		stdout, stderr string // parts of what is printed
	}{
		{"", 0, "weir run", ""},
		{"--help", 0, "doctor", ""},
		{"version", 0, "weir ", ""},
		{"version extra", 2, "", "extra"},
		{"polcy", 2, "", `perhaps "policy"`},
		{"--no-such-flag", 2, "", "--no-such-flag"},
		{"run", 125, "", "the command is missing"},
		{"run --no-such-flag", 125, "", "see: weir run --help"},
		{"run -- true", 125, "", "--audit"},
		{"run --help", 0, "COMMAND", ""},
		{"policy", 2, "", "validate, explain, prove, diff or list"},
		{"policy validate", 2, "", "weir policy validate"},
		{"gateway", 2, "", "required"},
		{"gateway extra", 2, "", "extra"},
		{"doctor -o yaml", 2, "", "neither text nor json"},
		{"doctor extra", 2, "", "extra"},
		{"completion bash", 0, "__start_weir", ""},
	} {
		t.Run(c.args, func(t *testing.T) {
			var stdout, stderr strings.Builder
			code := execute(context.Background(), strings.Fields(c.args), &stdout, &stderr)
			if code != c.code || !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) {
				t.Errorf("status %d, want %d\nstdout, want %q: %s\nstderr, want %q: %s", code, c.code, c.stdout, stdout.String(), c.stderr, stderr.String())
			}
			if code != 0 && (!strings.HasPrefix(stderr.String(), "weir: ") || strings.Contains(stderr.String(), "Usage:")) {
				t.Errorf("not one clear error: %s", stderr.String())
			}
		})
	}
}

func TestVersion(t *testing.T) {
	info := &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"},
	}}
	var b strings.Builder
	printVersion(&b, info)
	if got := b.String(); !strings.HasPrefix(got, "weir v1.2.3 0123456789ab+changes go") || strings.Count(got, "\n") != 1 {
		t.Errorf("%q", got)
	}
	b.Reset()
	printVersion(&b, &debug.BuildInfo{})
	if got := b.String(); !strings.HasPrefix(got, "weir (unknown) go") {
		t.Errorf("%q", got)
	}
}
