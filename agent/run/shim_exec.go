//go:build linux

package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// defaultPath is where execvp(3) looks without PATH.
const defaultPath = "/bin:/usr/bin"

// execute becomes the program argv[0], looked up in path as execvp(3) does. It
// returns only where that fails.
func execute(argv []string, path string) error {
	name := argv[0]
	if strings.Contains(name, "/") || name == "" {
		return notStarted(name, execFile(name, argv))
	}
	if path == "" {
		path = defaultPath
	}
	var denied error
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "."
		}
		err := execFile(dir+"/"+name, argv)
		switch {
		case errors.Is(err, syscall.EACCES):
			denied = err // something later in the path may do
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ESTALE),
			errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ETIMEDOUT):
		default:
			return notStarted(name, err)
		}
	}
	if denied != nil {
		return notStarted(name, denied)
	}
	return &Error{StatusNotFound, fmt.Errorf("%s: not found in PATH", name)}
}

func execFile(file string, argv []string) error {
	err := syscall.Exec(file, argv, os.Environ())
	if errors.Is(err, syscall.ENOEXEC) {
		// A script without #!, which shells and execvp(3) run all the same.
		err = syscall.Exec("/bin/sh", append([]string{"/bin/sh", file}, argv[1:]...), os.Environ())
	}
	return err
}

func notStarted(name string, err error) error {
	status := StatusNotExecutable
	if errors.Is(err, syscall.ENOENT) {
		status = StatusNotFound
	}
	return &Error{status, fmt.Errorf("start %q: %w", name, err)}
}
