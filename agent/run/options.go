package run

import (
	"fmt"
	"os"
	"syscall"
)

// Exit statuses of weir run itself, those of env(1) and timeout(1).
const (
	StatusFailed        = 125 // weir failed; the command was not started
	StatusNotExecutable = 126
	StatusNotFound      = 127
)

// Options say what to run and under which policy.
type Options struct {
	Policies []string // files
	Labels   []string // "key=value"; of the command, beside its namespace
	Audit    bool     // let everything through, and record what would be refused
	Learn    string   // let everything through, and write a policy of it to this file, which must not exist
	User     string   // who runs the command; "" for the user who called sudo
	Format   string   // of records: "compact" or "json"
	Log      string   // file that records are appended to; "" for standard error
	Command  []string // name or path, and arguments
}

// Error is a failure of weir run with the exit status that goes with it.
type Error struct {
	Status int
	Err    error
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func failed(err error) error {
	return &Error{Status: StatusFailed, Err: err}
}

func failedf(format string, args ...any) error {
	return failed(fmt.Errorf(format, args...))
}

// Status is how the command ended.
type Status struct {
	Code   int            // its exit status, where Signal is 0
	Signal syscall.Signal // what killed it
}

// Code is the exit status that a shell shows for it.
func (s Status) shell() int {
	if s.Signal != 0 {
		return 128 + int(s.Signal)
	}
	return s.Code
}

// Exit ends this process as the command ended: killed by the same signal, so that a
// shell knows that it was interrupted, or with the same status.
func (s Status) Exit() {
	if s.Signal != 0 {
		raise(s.Signal)
	}
	os.Exit(s.shell())
}
