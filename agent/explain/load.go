package explain

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/cnp"
)

// File is what was read of one policy file.
type File struct {
	Name     string
	Policies []*l7rules.Policy
	Warnings []cnp.Warning
	Err      error
}

// Load reads policy files. A directory stands for the .yaml and .yml files in it, not
// below. Each file has its own error.
func Load(names []string) []File {
	var files []File
	for _, name := range names {
		expanded, err := expand(name)
		if err != nil {
			files = append(files, File{Name: name, Err: err})
		}
		for _, path := range expanded {
			f := File{Name: path}
			data, err := read(path)
			if err == nil {
				f.Policies, f.Warnings, err = cnp.Parse(path, data)
			}
			f.Err = err
			files = append(files, f)
		}
	}
	return files
}

func expand(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return []string{name}, nil // not a directory; reading it says what it is
	}
	var paths []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(e.Name(), ".") {
			paths = append(paths, filepath.Join(name, e.Name()))
		}
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%s: no .yaml or .yml file in this directory", name)
	}
	slices.Sort(paths)
	return paths, nil
}

// read reads a file, and no more of it than shows that it is too large.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, fmt.Errorf("read policy %s: %w", path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, cnp.MaxFileLen+1))
	if err != nil {
		return nil, fmt.Errorf("read policy %s: %w", path, err)
	}
	return data, nil
}

// Join puts the policies of all files together. The error is that of every file that has
// one.
func Join(files []File) (policies []*l7rules.Policy, warnings []cnp.Warning, err error) {
	var errs []error
	for _, f := range files {
		policies = append(policies, f.Policies...)
		warnings = append(warnings, f.Warnings...)
		if f.Err != nil {
			errs = append(errs, f.Err)
		}
	}
	if len(errs) > 0 {
		return nil, warnings, errors.Join(errs...)
	}
	return policies, slices.Concat(warnings, cnp.SameNames(policies), cnp.Untold(policies)), nil
}
