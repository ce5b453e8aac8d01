package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Exit statuses beside those of weir run, which package run has.
const (
	exitNo    = 1 // the answer is no, or it failed
	exitUsage = 2 // the command line is wrong
)

// exitError is an error with the exit status it stands for. A nil err says that there is
// nothing left to print.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// report prints what is left to say about an error and returns the exit status for it.
func report(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	code := exitNo
	var e *exitError
	switch {
	case errors.As(err, &e):
		code = e.code
	case strings.HasPrefix(err.Error(), "required flag"), strings.HasPrefix(err.Error(), "unknown command"):
		code = exitUsage // cobra has no types for these
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(stderr, "weir:", text)
	}
	return code
}
