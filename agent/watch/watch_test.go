//go:build linux

package watch

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestChanges does things in a directory, one after the other, each a few words: what is
// told of, and what is not ("quiet:"). A path is below the directory; P is what is
// watched.
func TestChanges(t *testing.T) {
	for name, c := range map[string]struct{ before, watch, steps string }{
		"a file is written":               {"write f", "f", "write f; append f; chmod f"},
		"a file is replaced":              {"write f", "f", "quiet: write f.tmp; rename f.tmp f"},
		"a file is removed and returns":   {"write f", "f", "remove f; write f"},
		"another file":                    {"write f", "f", "quiet: write g; quiet: rename g h; quiet: remove h; append f"},
		"a file comes":                    {"mkdir d", "d/f", "write d/f"},
		"a directory comes":               {"", "a/b/f", "mkdir a; mkdir a/b; write a/b/f"},
		"a directory is replaced":         {"mkdir d; write d/f; mkdir e; write e/f", "d", "rename d old; rename e d; append d/f; quiet: append old/f"},
		"a parent is renamed":             {"mkdir a; mkdir a/b; write a/b/f", "a/b", "rename a c; rename c a; append a/b/f"},
		"files of a directory":            {"mkdir d; write d/f", "d", "write d/g; rename d/g d/h; remove d/h; remove d/f"},
		"below a directory":               {"mkdir d; mkdir d/e; write d/f", "d", "quiet: write d/e/f; append d/f"},
		"a link to a file":                {"mkdir d; write d/f; link d/f f", "f", "append d/f; quiet: write d/g; quiet: link d/g f.tmp; rename f.tmp f; append d/g; quiet: append d/f"},
		"a link to a directory":           {"mkdir d; mkdir e; link d l", "l", "write d/f; quiet: link e l.tmp; rename l.tmp l; write e/f; quiet: append d/f"},
		"links on the way":                {"mkdir d; mkdir d/e; write d/e/f; link d l; link l/e m", "m/f", "append d/e/f; remove m; link d/e m; quiet: remove l; append d/e/f"},
		"a link up":                       {"mkdir a; mkdir a/b; write f; link ../../f a/b/f", "a/b/f", "append f"},
		"a link in a directory":           {"mkdir d; mkdir e; write e/f; link ../e/f d/f", "d", "append e/f; remove e/f"},
		"a link in a directory to one":    {"mkdir d; mkdir e; write e/f; link ../e d/e; write d/f", "d", "quiet: append e/f; remove d/e"},
		"an absolute link":                {"mkdir d; write d/f; linkabs d/f f", "f", "append d/f"},
		"a loop":                          {"link a b; link b a", "a", "remove a; write a"},
		"a link to itself in a directory": {"mkdir d; link l d/l", "d", "write d/f"},
		// As kubelet writes a ConfigMap: files are links over ..data, which is replaced.
		"a volume of Kubernetes": {"mkdir v; mkdir v/..1; write v/..1/f; link ..1 v/..data; link ..data/f v/f", "v",
			"mkdir v/..2; quiet: write v/..2/f; link ..2 v/..data_tmp; rename v/..data_tmp v/..data; quiet: remove v/..1/f; append v/..2/f"},
		"a file of such a volume": {"mkdir v; mkdir v/..1; write v/..1/f; mkdir v/..2; write v/..2/f; link ..1 v/..data; link ..data/f v/f", "v/f",
			"append v/..1/f; quiet: link ..2 v/..data_tmp; rename v/..data_tmp v/..data; append v/..2/f; quiet: append v/..1/f"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for step := range steps(c.before) {
				do(t, dir, step)
			}
			w, err := New(slog.New(slog.NewTextHandler(t.Output(), nil)))
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if err := w.Watch([]string{filepath.Join(dir, c.watch)}); err != nil {
				t.Fatal(err)
			}
			for step := range steps(c.steps) {
				what, silent := strings.CutPrefix(step, "quiet: ")
				do(t, dir, what)
				if silent {
					select {
					case <-w.Changes():
						t.Errorf("%s: told of", what)
					case <-time.After(3 * quiet):
					}
					continue
				}
				select {
				case <-w.Changes():
				case <-time.After(20 * time.Second):
					t.Fatalf("%s: not told of", step)
				}
			}
		})
	}
}

func steps(s string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for step := range strings.SplitSeq(s, "; ") {
			if step != "" && !yield(step) {
				return
			}
		}
	}
}

func do(t *testing.T, dir, step string) {
	t.Helper()
	f := strings.Fields(step)
	at := func(i int) string { return filepath.Join(dir, f[i]) }
	var err error
	switch f[0] {
	case "write":
		err = os.WriteFile(at(1), []byte("a"), 0o644)
	case "append":
		var file *os.File
		if file, err = os.OpenFile(at(1), os.O_WRONLY|os.O_APPEND, 0); err == nil {
			_, err = file.WriteString("b")
			file.Close()
		}
	case "chmod":
		err = os.Chmod(at(1), 0o600)
	case "rename":
		err = os.Rename(at(1), at(2))
	case "remove":
		err = os.Remove(at(1))
	case "mkdir":
		err = os.Mkdir(at(1), 0o755)
	case "link":
		err = os.Symlink(f[1], at(2))
	case "linkabs":
		err = os.Symlink(at(1), at(2))
	default:
		t.Fatalf("unknown step %q", step)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A burst of changes is one value, however long it takes to be quiet.
func TestBurst(t *testing.T) {
	dir := t.TempDir()
	w, err := New(slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Watch([]string{dir}); err != nil {
		t.Fatal(err)
	}
	told, n := 0, 0
	start := time.Now()
	for ; time.Since(start) < 2*longest; n++ {
		do(t, dir, "write f")
		select {
		case <-w.Changes():
			told++
		default:
		}
	}
	if told < 1 || told > 4 {
		t.Errorf("told %d times of %d changes in %v", told, n, 2*longest)
	}
}

// What is not watched any more costs nothing and tells nothing.
func TestWatchReplaces(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	w, err := New(slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var watched []int
	for _, dir := range []string{a, b, a, b} {
		if err := w.Watch([]string{dir}); err != nil {
			t.Fatal(err)
		}
		watched = append(watched, len(w.places))
	}
	if watched[0] != watched[2] || watched[1] != watched[3] {
		t.Errorf("watched directories: %v", watched)
	}
	do(t, a, "write f")
	select {
	case <-w.Changes():
		t.Error("told of what is not watched any more")
	case <-time.After(3 * quiet):
	}
	do(t, b, "write f")
	<-w.Changes()
}

func TestClose(t *testing.T) {
	dir := t.TempDir()
	for range 50 {
		w, err := New(slog.Default())
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Watch([]string{dir}); err != nil {
			t.Fatal(err)
		}
		do(t, dir, "write f")
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLimitHint(t *testing.T) {
	for err, want := range map[unix.Errno]string{unix.EMFILE: "max_user_instances", unix.ENOSPC: "max_user_watches"} {
		if got := limitHint(err); !strings.Contains(got, want) {
			t.Errorf("%v: %q", err, got)
		}
	}
}
