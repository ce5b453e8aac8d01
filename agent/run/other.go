//go:build !linux

package run

import (
	"context"
	"errors"
	"syscall"
)

// Run needs Linux.
func Run(context.Context, Options) (Status, error) {
	return Status{}, failed(errors.New("weir run needs Linux: `weir gateway` judges the same requests on any system"))
}

// Main has nothing to do where there is no Run.
func Main() {}

func raise(syscall.Signal) {}
