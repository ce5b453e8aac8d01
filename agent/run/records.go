//go:build linux

package run

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/weir-proxy/weir/agent/records"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// openRecords returns a sink that writes records to a file, or to stderr if none is
// named, and what ends it.
func openRecords(format, file string, stderr io.Writer, failed func(error)) (flow.Sink, func() error, error) {
	if format == "" {
		format = string(records.Compact)
	}
	w, done := stderr, func() error { return nil }
	if file != "" {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return nil, nil, fmt.Errorf("open log of records: %w", err)
		}
		w, done = f, f.Close
	}
	out, err := records.New(w, records.Format(format), failed)
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return out.Sink, func() error {
		out.Close() // has told failed
		return done()
	}, nil
}
