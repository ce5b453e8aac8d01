//go:build linux

// Package traces finds what weir has in the kernel and in its file systems, to
// show that a stopped one leaves nothing.
package traces

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
)

// Set is what weir has at a moment: programs and maps by id, pins and control
// groups by path.
type Set map[string]bool

// Now lists what is there.
func Now() (Set, error) {
	found := Set{}
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

// patience is how long Left waits for things to go: the kernel frees programs
// some time after the last reference, and other tests run at the same time.
const patience = 60 * time.Second

// Left reports what was not there before and does not go. Things that something
// else, at the same time, has made by now count until that is done with them.
func Left(before Set) ([]string, error) {
	suspects, err := Now()
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(suspects, func(what string, _ bool) bool { return before[what] })
	for deadline := time.Now().Add(patience); len(suspects) > 0; {
		now, err := Now()
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
