package records

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-proxy/weir/l7rules/flow"
)

func record(i int) *flow.Record {
	return &flow.Record{Time: time.Unix(0, 0).UTC(), Verdict: flow.Forwarded, Type: "test", Reason: fmt.Sprintf("number %d.", i)}
}

// Nothing is lost at the end, however many write at once, and the order of each is kept.
func TestNothingIsLost(t *testing.T) {
	var out bytes.Buffer
	w, err := New(&out, Compact, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 8, 5000
	var wg sync.WaitGroup
	for k := range writers {
		wg.Go(func() {
			for i := range each {
				w.Sink(record(k*each + i))
			}
		})
	}
	wg.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != writers*each {
		t.Fatalf("%d lines, want %d", len(lines), writers*each)
	}
	next := make([]int, writers)
	for _, l := range lines {
		var n int
		if _, err := fmt.Sscanf(l[strings.Index(l, "number "):], "number %d.", &n); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		if k := n / each; n%each != next[k] {
			t.Fatalf("writer %d: record %d where %d should be", k, n%each, next[k])
		} else {
			next[k]++
		}
	}
}

// A record does not wait for the next one.
func TestRecordsComeOutPromptly(t *testing.T) {
	lines := make(chan string, 1)
	w, err := New(writerFunc(func(b []byte) (int, error) { lines <- string(b); return len(b), nil }), JSON, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range 3 {
		w.Sink(record(i))
		select {
		case l := <-lines:
			var got map[string]any
			if err := json.Unmarshal([]byte(l), &got); err != nil || got["reason"] != fmt.Sprintf("number %d.", i) {
				t.Errorf("%q: %v", l, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no record came out")
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// While the writer is slow those who make records wait; when it has stalled they are
// counted, and the count comes out.
func TestSlowWriter(t *testing.T) {
	for _, format := range []Format{Compact, JSON} {
		t.Run(string(format), func(t *testing.T) {
			gate, writing := make(chan struct{}), make(chan struct{}, 100)
			var out bytes.Buffer
			w, err := New(writerFunc(func(b []byte) (int, error) {
				writing <- struct{}{}
				<-gate
				return out.Write(b)
			}), format, func(err error) { t.Error(err) })
			if err != nil {
				t.Fatal(err)
			}
			made := 0
			w.Sink(record(made))
			made++
			<-writing // the write of the first one is in progress
			for {
				w.mu.Lock()
				full := len(w.pending) >= maxPending
				w.mu.Unlock()
				if full {
					break
				}
				w.Sink(record(made))
				made++
			}

			waiting := make(chan struct{})
			go func() {
				w.Sink(record(made))
				close(waiting)
			}()
			select {
			case <-waiting:
				t.Fatal("a record was taken beyond the bound")
			case <-time.After(20 * time.Millisecond):
			}
			// As if five seconds had passed.
			w.mu.Lock()
			w.since = w.since.Add(-stalled)
			w.room.Broadcast()
			w.mu.Unlock()
			<-waiting
			w.Sink(record(made))
			close(gate)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			text := out.String()
			if n := strings.Count(text, "number "); n != made {
				t.Errorf("%d records came out of %d", n, made)
			}
			want := "2 records lost: their reader was too slow\n"
			if format == JSON {
				want = `{"lost":2,"reason":"the reader of the records was too slow"}` + "\n"
			}
			if !strings.HasSuffix(text, want) {
				t.Errorf("ends in %q", text[max(0, len(text)-200):])
			}
		})
	}
}

func TestWriteError(t *testing.T) {
	full := errors.New("disk full")
	told := make(chan error, 10)
	w, err := New(writerFunc(func([]byte) (int, error) { return 0, full }), Compact, func(err error) { told <- err })
	if err != nil {
		t.Fatal(err)
	}
	w.Sink(record(0))
	if err := <-told; !errors.Is(err, full) {
		t.Error(err)
	}
	w.Sink(record(1)) // does not block
	if err := w.Close(); !errors.Is(err, full) {
		t.Error(err)
	}
	if len(told) != 0 {
		t.Error("told twice")
	}
}

func TestUnknownFormat(t *testing.T) {
	if _, err := New(&bytes.Buffer{}, "yaml", nil); err == nil {
		t.Error("no error")
	}
}

func BenchmarkSink(b *testing.B) {
	w, err := New(writerFunc(func(b []byte) (int, error) { return len(b), nil }), Compact, func(err error) { b.Error(err) })
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	r := record(0)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w.Sink(r)
		}
	})
}
