package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what commands print into testdata")

// TestPolicyScripts runs the files of testdata/policy. Each holds files, and one named
// "run": lines of a command behind "$ " with what it prints and its exit status after
// them. Arguments stand apart by blanks, in single quotes where they hold some; "< FILE"
// at the end is where standard input comes from.
func TestPolicyScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/policy/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(script)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			var want string
			for _, f := range archive.Files {
				if f.Name == "run" {
					want = string(f.Data)
					continue
				}
				path := filepath.Join(dir, f.Name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, f.Data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			script, err := filepath.Abs(script)
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(dir)
			var got strings.Builder
			for line := range strings.Lines(want) {
				if command, ok := strings.CutPrefix(line, "$ "); ok {
					fmt.Fprintf(&got, "$ %s", command)
					runPolicy(t, &got, strings.TrimSpace(command))
				}
			}
			if *update {
				for i := range archive.Files {
					if archive.Files[i].Name == "run" {
						archive.Files[i].Data = []byte(got.String())
					}
				}
				if err := os.WriteFile(script, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got.String()); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}

// runPolicy writes what a command prints, on both streams, and its exit status.
func runPolicy(t *testing.T, w *strings.Builder, command string) {
	var args []string
	command, input, _ := strings.Cut(command, " < ")
	for i, quoted := range strings.Split(command, "'") {
		if i%2 == 1 {
			args = append(args, quoted)
		} else {
			args = append(args, strings.Fields(quoted)...)
		}
	}
	var out, errs bytes.Buffer
	cmd := policyCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if input != "" {
		data, err := os.ReadFile(input)
		if err != nil {
			t.Fatal(err)
		}
		cmd.SetIn(bytes.NewReader(data))
	}
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(args)
	err := cmd.Execute()
	status := 0
	if err != nil {
		status = 1000 // cobra's own, which the command should have caught
		var ee *exitError
		if errors.As(err, &ee) {
			status = ee.code
		}
		if err.Error() != "" {
			fmt.Fprintf(&errs, "error: %v\n", err)
		}
	}
	w.Write(out.Bytes())
	w.Write(errs.Bytes())
	fmt.Fprintf(w, "exit %d\n", status)
}
