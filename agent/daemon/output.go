package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/weir-proxy/weir/agent/config"
	"github.com/weir-proxy/weir/agent/records"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// output is where records are logged. It can be exchanged while they come.
type output struct {
	stderr io.Writer
	log    *slog.Logger

	mu   sync.RWMutex // held for reading while a record is given to w
	w    *records.Writer
	file *os.File // nil for stderr
}

// sink is a flow.Sink. Before the first open it discards.
func (o *output) sink(r *flow.Record) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.w != nil {
		o.w.Sink(r)
	}
}

// lost is how many records the log was too slow for since it was opened.
func (o *output) lost() uint64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.w == nil {
		return 0
	}
	return o.w.Lost()
}

// open begins a log in place of the one before, which may be the same file under
// another name by now. On an error the one before goes on.
func (o *output) open(l config.Log) error {
	var w io.Writer = o.stderr
	var file *os.File
	if l.File != "" {
		f, err := os.OpenFile(l.File, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
		if err != nil {
			return fmt.Errorf("open log of records: %w", err)
		}
		w, file = f, f
	}
	next, err := records.New(w, l.Format, func(err error) {
		o.log.Error("records are not logged any more, until SIGHUP: weir observe still shows them", "error", err)
	})
	if err != nil {
		if file != nil {
			file.Close()
		}
		return err
	}
	o.mu.Lock()
	before, beforeFile := o.w, o.file
	o.w, o.file = next, file
	o.mu.Unlock()
	end(before, beforeFile)
	return nil
}

// close writes out what waits. Records that come later are discarded.
func (o *output) close() {
	o.mu.Lock()
	w, file := o.w, o.file
	o.w, o.file = nil, nil
	o.mu.Unlock()
	end(w, file)
}

func end(w *records.Writer, file *os.File) {
	if w != nil {
		w.Close() // has logged its error
	}
	if file != nil {
		file.Close()
	}
}
