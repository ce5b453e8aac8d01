// Package records writes flow records to a file or a terminal: one line each,
// compact or JSON, in batches and without an allocation per record.
package records

import (
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// Format is how a record is written.
type Format string

// Formats, as `-o` takes them.
const (
	Compact Format = "compact"
	JSON    Format = "json"
)

const (
	// gather is how long a record waits for others to be written together with, and
	// gatherMost how long while so many come that a write every gather holds less than
	// fullBatch each: a write is a system call that can block, and the scheduler's watch over
	// those costs a busy proxy more than the write does.
	gather     = time.Millisecond
	gatherMost = 32 * time.Millisecond
	fewBytes   = 1 << 10 // in a batch: then nobody else is coming
	fullBatch  = 128 << 10
	// maxPending is how much may wait for a slow writer before whoever makes
	// records waits too.
	maxPending = 1 << 20
	// stalled is how long one write may take before records are counted instead
	// of kept.
	stalled = 5 * time.Second
)

// Writer takes records from any number of goroutines and writes them out from one
// of its own, in the order they came: after a millisecond, or 32 while many come.
//
// While the io.Writer is slow, Sink blocks once maxPending bytes wait: connections
// go no faster than their records. If a single write takes longer than stalled (a
// reader of the log that stopped, a pager), records are lost from then on rather
// than all traffic with them, and as soon as the writer moves again a line says
// how many. An error of the io.Writer ends writing, not the traffic, and is
// reported at once. Nothing is lost silently.
type Writer struct {
	w      io.Writer
	add    func(*flow.Record, []byte) []byte
	json   bool
	failed func(error)

	mu      sync.Mutex
	pending []byte
	lost    uint64     // since the last line that said so
	total   uint64     // lost since the beginning
	since   time.Time  // of the write in progress; zero if there is none
	room    *sync.Cond // pending was taken, the write stalled or failed, or Close was called
	err     error
	closed  bool

	wake    chan struct{} // holds one value while pending is not empty
	closing chan struct{}
	done    chan struct{}
}

// New starts a Writer on w. Close ends it; w stays open. failed is told the first
// error of writing, once.
func New(w io.Writer, format Format, failed func(error)) (*Writer, error) {
	r := &Writer{w: w, failed: failed, wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{})}
	switch format {
	case Compact:
		r.add = (*flow.Record).AppendCompact
	case JSON:
		r.add, r.json = (*flow.Record).AppendJSON, true
	default:
		return nil, fmt.Errorf("write records: format %q: compact or json", string(format))
	}
	r.room = sync.NewCond(&r.mu)
	go r.run()
	return r, nil
}

// Sink is a flow.Sink. It must not be called any more when Close is.
func (w *Writer) Sink(r *flow.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) >= maxPending && w.err == nil {
		if !w.since.IsZero() && time.Since(w.since) >= stalled {
			w.lost++
			w.total++
			return
		}
		w.room.Wait()
	}
	if w.err != nil || w.closed {
		return
	}
	first := len(w.pending) == 0
	w.pending = append(w.add(r, w.pending), '\n')
	if first {
		w.wake <- struct{}{} // does not block: run took the last one before it took pending
	}
}

// Lost is how many records were lost until now.
func (w *Writer) Lost() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.total
}

// Close writes out what waits and returns the first error of writing.
func (w *Writer) Close() error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.closing)
	}
	w.mu.Unlock()
	<-w.done
	return w.err
}

func (w *Writer) run() {
	defer close(w.done)
	var batch []byte
	alarm := time.AfterFunc(stalled, w.room.Broadcast)
	wait := gather
	for open := true; open; {
		open = w.gather(wait)
		w.mu.Lock()
		batch, w.pending = w.pending, batch[:0]
		batch = w.appendLost(batch)
		w.since = time.Now()
		w.room.Broadcast()
		w.mu.Unlock()

		switch {
		case len(batch) < fewBytes:
			wait = gather
		case len(batch) < fullBatch:
			wait = min(2*wait, gatherMost)
		}
		alarm.Reset(stalled)
		err := w.write(batch)
		alarm.Stop()

		w.mu.Lock()
		w.since = time.Time{}
		if err != nil {
			w.err = fmt.Errorf("write records: %w", err)
			w.room.Broadcast()
		}
		w.mu.Unlock()
		if err != nil {
			w.failed(w.err)
		}
	}
}

// gather waits for a record, and then for more; false after Close.
func (w *Writer) gather(d time.Duration) bool {
	select {
	case <-w.wake:
	case <-w.closing:
		return false
	}
	select {
	case <-time.After(d):
		return true
	case <-w.closing:
		return false
	}
}

// write writes b unless an earlier write failed.
func (w *Writer) write(b []byte) error {
	if len(b) == 0 || w.err != nil {
		return nil
	}
	_, err := w.w.Write(b)
	return err
}

// appendLost adds the line that owns up to what was lost.
func (w *Writer) appendLost(b []byte) []byte {
	if w.lost == 0 {
		return b
	}
	if w.json {
		b = append(b, `{"lost":`...)
		b = strconv.AppendUint(b, w.lost, 10)
		b = append(b, `,"reason":"the reader of the records was too slow"}`...)
	} else {
		b = strconv.AppendUint(b, w.lost, 10)
		b = append(b, " records lost: their reader was too slow"...)
	}
	w.lost = 0
	return append(b, '\n')
}
