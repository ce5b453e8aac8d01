//go:build linux

// Package watch tells when files may have changed: written, replaced by a rename,
// reached over other symbolic links than before, come or gone.
package watch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What changes comes in bursts: an editor makes, writes and renames; an unpacked archive
// is many files. A change is told when nothing more has happened for quiet, and no later
// than longest after the first.
const (
	quiet   = 100 * time.Millisecond
	longest = time.Second
)

// Events of a directory. Not IN_MODIFY: what somebody is still writing is looked at when
// it is closed.
const events = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF

// Watcher watches paths and the files in them, but not below them: for each path every
// directory on the way to it, over any number of symbolic links, so that nothing that
// leads elsewhere than before goes unseen. What inotify does not tell goes unseen too: a
// file system mounted over a directory, and changes that another machine makes to a
// network file system.
type Watcher struct {
	log     *slog.Logger
	inotify *os.File
	fd      int
	changes chan struct{}
	done    chan struct{}

	mu     sync.Mutex
	closed bool
	paths  []string
	places map[int32]*place // by watch descriptor
}

// place is what is watched in one directory.
type place struct {
	all   bool            // every name
	names map[string]bool // else these
}

// New makes a Watcher of nothing. log receives what goes wrong later.
func New(log *slog.Logger) (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch files: %w%s", err, limitHint(err))
	}
	w := &Watcher{log: log, inotify: os.NewFile(uintptr(fd), "inotify"), fd: fd,
		changes: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w, nil
}

// Changes delivers a value when something may have changed. Several changes may be one
// value; whoever has received it reads everything again.
func (w *Watcher) Changes() <-chan struct{} { return w.changes }

// Close ends the watch.
func (w *Watcher) Close() error {
	w.mu.Lock()
	w.closed = true
	err := w.inotify.Close()
	w.mu.Unlock()
	<-w.done
	return err
}

// Watch replaces the watched paths. What changes after it has returned is told. Paths
// that do not exist are waited for.
func (w *Watcher) Watch(paths []string) error {
	all := make([]string, len(paths))
	for i, p := range paths {
		var err error
		if all[i], err = filepath.Abs(p); err != nil {
			return fmt.Errorf("watch %s: %w", p, err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paths = all
	return w.follow()
}

// follow walks all paths anew. The caller holds w.mu.
func (w *Watcher) follow() error {
	if w.closed {
		return nil
	}
	old := w.places
	w.places = map[int32]*place{}
	var errs []error
	for _, p := range w.paths {
		errs = append(errs, w.walk("/", p, 0))
	}
	for wd := range old {
		if w.places[wd] == nil {
			unix.InotifyRmWatch(w.fd, uint32(wd)) // fails where its directory is gone
		}
	}
	return errors.Join(errs...)
}

// maxLinks is how many symbolic links Linux follows in one path (path_resolution(7)).
const maxLinks = 40

// walk watches every directory on the way from dir, in which no link is left, along
// rest. Each directory is watched before it is looked into, so that what happens in
// between is told.
func (w *Watcher) walk(dir, rest string, links int) error {
	name, rest, _ := strings.Cut(strings.TrimLeft(rest, "/"), "/")
	switch name {
	case "":
		return w.arrive(dir, links)
	case ".":
		return w.walk(dir, rest, links)
	case "..":
		return w.walk(filepath.Dir(dir), rest, links)
	}
	if ok, err := w.add(dir, name); !ok {
		return err
	}
	path := filepath.Join(dir, name)
	target, err := os.Readlink(path)
	switch {
	case err == nil && links == maxLinks:
		return nil // as nobody can open it, there is nothing to see
	case err == nil && filepath.IsAbs(target):
		return w.walk("/", target+"/"+rest, links+1)
	case err == nil:
		return w.walk(dir, target+"/"+rest, links+1)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return w.walk(path, rest, links)
}

// arrive watches what is at the end of a path: a directory is watched whole, with the
// ways that links in it take.
func (w *Watcher) arrive(path string, links int) error {
	fi, err := os.Lstat(path)
	if err != nil || !fi.IsDir() {
		return nil // a file is watched in its directory
	}
	if ok, err := w.add(path, ""); !ok {
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil // whoever reads it next says why
	}
	var errs []error
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink != 0 && links < maxLinks {
			errs = append(errs, w.walkLink(path, e.Name()))
		}
	}
	return errors.Join(errs...)
}

// walkLink watches where a link in a watched directory leads, but not what is in the
// directory that it may lead to.
func (w *Watcher) walkLink(dir, name string) error {
	target, err := os.Readlink(filepath.Join(dir, name))
	if err != nil {
		return nil
	}
	if fi, err := os.Stat(filepath.Join(dir, name)); err == nil && fi.IsDir() {
		return nil
	}
	if filepath.IsAbs(target) {
		dir = "/"
	}
	return w.walk(dir, target, 1)
}

// add watches a name in a directory, "" every name. It is not ok where the directory is
// gone, which its parent's watch tells.
func (w *Watcher) add(dir, name string) (ok bool, err error) {
	wd, err := unix.InotifyAddWatch(w.fd, dir, events|unix.IN_ONLYDIR)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("watch %s: %w%s", dir, err, limitHint(err))
	}
	p := w.places[int32(wd)]
	if p == nil {
		p = &place{names: map[string]bool{}}
		w.places[int32(wd)] = p
	}
	if name == "" {
		p.all = true
	}
	p.names[name] = true
	return true, nil
}

// limitHint says which limit of the system an error of inotify is.
func limitHint(err error) string {
	switch {
	case errors.Is(err, unix.EMFILE):
		return " (raise sysctl fs.inotify.max_user_instances)"
	case errors.Is(err, unix.ENOSPC):
		return " (raise sysctl fs.inotify.max_user_watches)"
	}
	return ""
}

// run reads events and tells of changes.
func (w *Watcher) run() {
	defer close(w.done)
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		buf := make([]byte, 16<<10) // many events; one has at most 16+NAME_MAX+1 bytes
		for {
			n, err := w.inotify.Read(buf)
			if err != nil {
				return // closed
			}
			if w.concerns(buf[:n]) {
				seen <- struct{}{}
			}
		}
	}()
	for {
		if _, open := <-seen; !open {
			return
		}
		for end := time.Now().Add(longest); time.Now().Before(end); {
			timer := time.NewTimer(min(quiet, time.Until(end)))
			select {
			case _, open := <-seen:
				timer.Stop()
				if !open {
					return
				}
				continue
			case <-timer.C:
			}
			break
		}
		w.mu.Lock()
		err := w.follow()
		w.mu.Unlock()
		if err != nil {
			w.log.Error("changes of policies may go unseen from now on: send SIGHUP after them", "error", err)
		}
		select {
		case w.changes <- struct{}{}:
		default: // the last one has not been received yet
		}
	}
}

// concerns reports whether one of the events in buf is about a watched name.
func (w *Watcher) concerns(buf []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := false
	for len(buf) >= unix.SizeofInotifyEvent {
		// struct inotify_event: wd, mask, cookie, len, name (inotify(7)).
		wd := int32(binary.NativeEndian.Uint32(buf))
		mask := binary.NativeEndian.Uint32(buf[4:])
		n := min(int(binary.NativeEndian.Uint32(buf[12:])), len(buf)-unix.SizeofInotifyEvent)
		name := strings.TrimRight(string(buf[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+n]), "\x00")
		buf = buf[unix.SizeofInotifyEvent+n:]

		p := w.places[wd]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			found = true
		case p == nil || mask&unix.IN_IGNORED != 0: // of a watch that was given up
		case name == "":
			found = true // the directory itself
		case p.all || p.names[name]:
			found = true
		}
	}
	return found
}
