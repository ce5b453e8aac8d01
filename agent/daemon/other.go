//go:build !linux

package daemon

import (
	"context"
	"errors"
)

// Run needs Linux.
func Run(context.Context, Options) error {
	return errors.New("weir agent needs Linux: `weir gateway` judges the same requests on any system")
}
