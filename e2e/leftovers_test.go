//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/rogpeppe/go-internal/testscript"
)

// traces lists what weir has in the kernel at the moment: programs and maps by
// id, pins and control groups by path.
func traces() (map[string]bool, error) {
	found := map[string]bool{}
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("list programs: %w", err)
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // gone in between
		}
		if info, err := p.Info(); err == nil && strings.HasPrefix(info.Name, "weir") {
			found[fmt.Sprintf("program %d %s", id, info.Name)] = true
			if ids, ok := info.MapIDs(); ok {
				for _, m := range ids {
					found[fmt.Sprintf("map %d", m)] = true
				}
			}
		}
		p.Close()
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "bpf" && f[2] != "cgroup2" {
			continue
		}
		filepath.WalkDir(f[1], func(path string, d fs.DirEntry, err error) error {
			if err == nil && strings.Contains(strings.TrimPrefix(path, f[1]), "weir") && (f[2] == "bpf" || d.IsDir()) {
				found[f[2]+" "+path] = true
			}
			return nil
		})
	}
	return found, nil
}

type tracesKey struct{}

// leftBehind reports what was not there before and is still there after a while.
// What other tests, at the same time, have made by now is gone by then as well.
func leftBehind(before map[string]bool) ([]string, error) {
	const patience = 60 * time.Second
	suspects, err := traces()
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(suspects, func(what string, _ bool) bool { return before[what] })
	for deadline := time.Now().Add(patience); len(suspects) > 0; {
		now, err := traces()
		if err != nil {
			return nil, err
		}
		maps.DeleteFunc(suspects, func(what string, _ bool) bool { return !now[what] })
		if time.Now().After(deadline) {
			break
		}
		time.Sleep(20 * time.Millisecond) // between two looks at the condition
	}
	return slices.Sorted(maps.Keys(suspects)), nil
}

// nothing-left: no program, map, pin or control group remains of what ran since the
// script began.
func cmdNothingLeft(ts *testscript.TestScript, neg bool, args []string) {
	left, err := leftBehind(ts.Value(tracesKey{}).(map[string]bool))
	ts.Check(err)
	if len(left) > 0 {
		ts.Fatalf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

func mustTraces(t *testing.T) map[string]bool {
	t.Helper()
	found, err := traces()
	if err != nil {
		t.Fatal(err)
	}
	return found
}
