//go:build linux

package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/weir-proxy/weir/agent/learn"
)

// lesson is a run that is learned from. The zero value is one that is not.
type lesson struct {
	book learn.Book
	file *os.File
	o    Options
}

// startLesson makes the file that the policy goes to. One that is there already is not
// touched: it may be in force somewhere.
func startLesson(o Options) (*lesson, error) {
	f, err := os.OpenFile(o.Learn, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("--learn %s: the file exists: remove it, or name another", o.Learn)
	}
	if err != nil {
		return nil, fmt.Errorf("make the file of --learn: %w", err)
	}
	return &lesson{file: f, o: o}, nil
}

// drop removes the file: there was no run.
func (l *lesson) drop() {
	l.file.Close()
	os.Remove(l.o.Learn)
}

// write writes what was learned.
func (l *lesson) write() error {
	command := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.Join(l.o.Command, " "))
	text, err := l.book.Policy("learned", l.o.Labels, "Learned by weir run --learn from: "+command)
	if _, werr := l.file.Write(text); werr != nil {
		err = errors.Join(err, werr)
	}
	if err := errors.Join(err, l.file.Close()); err != nil {
		return fmt.Errorf("write policy to %s: %w", filepath.Clean(l.o.Learn), err)
	}
	return nil
}
