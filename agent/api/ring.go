package api

import (
	"sync"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// Bounds of what a Ring keeps.
const (
	maxRecords = 8192    // records
	maxBytes   = 8 << 20 // of the requests in them
	keepBuffer = 1 << 10 // of a slot, for the next record in it
)

// Ring keeps the most recent records for whoever wants to see them. Adding one neither
// waits for a reader nor, in the long run, allocates.
type Ring struct {
	mu      sync.Mutex
	slots   []stored
	next    uint64 // number of the record that comes next; the first is 0
	first   uint64 // number of the oldest that is kept
	bytes   int    // of the requests that are kept
	waiting int
	more    *sync.Cond // next has grown while somebody was waiting, or closed
	closed  bool
}

// stored is a record with a copy of its request, which is the sender's again as soon as
// the sink returns.
type stored struct {
	flow.Record
	request request
}

// request is a request as it is written, in both forms.
type request struct {
	kind string
	buf  []byte // text, then JSON
	text int    // length of the text
}

func (r *request) Type() string                 { return r.kind }
func (r *request) AppendText(dst []byte) []byte { return append(dst, r.buf[:r.text]...) }
func (r *request) AppendJSON(dst []byte) []byte { return append(dst, r.buf[r.text:]...) }

// NewRing makes an empty ring.
func NewRing() *Ring {
	r := &Ring{slots: make([]stored, maxRecords)}
	r.more = sync.NewCond(&r.mu)
	return r
}

// Sink is a flow.Sink.
func (r *Ring) Sink(rec *flow.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next-r.first == uint64(len(r.slots)) {
		r.drop()
	}
	s := &r.slots[r.next%uint64(len(r.slots))]
	s.Record = *rec
	s.Request = nil
	s.request.buf = s.request.buf[:0]
	if rec.Request != nil {
		s.request.kind = rec.Request.Type()
		s.request.buf = rec.Request.AppendText(s.request.buf)
		s.request.text = len(s.request.buf)
		s.request.buf = rec.Request.AppendJSON(s.request.buf)
		s.Request = &s.request
	}
	r.bytes += len(s.request.buf)
	r.next++
	for r.bytes > maxBytes && r.first < r.next-1 {
		r.drop()
	}
	if r.waiting > 0 {
		r.more.Broadcast()
	}
}

// drop forgets the oldest record. The caller holds r.mu.
func (r *Ring) drop() {
	s := &r.slots[r.first%uint64(len(r.slots))]
	r.bytes -= len(s.request.buf)
	if cap(s.request.buf) > keepBuffer {
		s.request.buf = nil
	}
	r.first++
}

// Close lets those who wait go.
func (r *Ring) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.more.Broadcast()
}

// cursor reads a ring in order. It is for one goroutine.
type cursor struct {
	ring   *Ring
	next   uint64 // number of the record to look at
	filter *matcher
	append func(*flow.Record, []byte) []byte
	gone   bool // whoever reads has gone
}

// perLook is how many records are looked at, and written, while the ring is locked.
const perLook = 32

// last moves the cursor back to the n-th last record that the filter lets through, or to
// the oldest one.
func (c *cursor) last(n int) {
	r := c.ring
	r.mu.Lock()
	c.next = r.next
	r.mu.Unlock()
	for at := c.next; n > 0; {
		r.mu.Lock()
		for range perLook {
			if at <= r.first || n == 0 {
				n = 0
				break
			}
			at--
			if c.filter.match(&r.slots[at%uint64(len(r.slots))].Record) {
				c.next = at
				n--
			}
		}
		r.mu.Unlock()
	}
}

// read adds the next records to dst, each with a line end, and says how many the ring
// had already forgotten. It returns at the end, more false, or after a few; with wait it
// waits at the end for the next one, until the ring is closed or the reader is gone.
func (c *cursor) read(dst []byte, wait bool) (_ []byte, lost uint64, more bool) {
	r := c.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	for wait && c.next == r.next && !r.closed && !c.gone {
		r.waiting++
		r.more.Wait()
		r.waiting--
	}
	if c.next < r.first {
		lost, c.next = r.first-c.next, r.first
	}
	for range perLook {
		if c.next == r.next {
			break
		}
		rec := &r.slots[c.next%uint64(len(r.slots))].Record
		if c.filter.match(rec) {
			dst = append(c.append(rec, dst), '\n')
		}
		c.next++
	}
	return dst, lost, c.next < r.next || wait && !r.closed && !c.gone
}

// atEnd reports whether there is nothing to read.
func (c *cursor) atEnd() bool {
	c.ring.mu.Lock()
	defer c.ring.mu.Unlock()
	return c.next == c.ring.next
}

// leave ends a read that waits.
func (c *cursor) leave() {
	c.ring.mu.Lock()
	defer c.ring.mu.Unlock()
	c.gone = true
	c.ring.more.Broadcast()
}
