package api

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

func record(i int) *flow.Record {
	return &flow.Record{Time: time.Unix(0, 0).UTC(), Type: "test", Reason: fmt.Sprintf("number %d.", i)}
}

func numbers(t *testing.T, text string) []int {
	t.Helper()
	var list []int
	for line := range strings.Lines(text) {
		var n int
		if _, err := fmt.Sscanf(line[max(0, strings.Index(line, "number ")):], "number %d.", &n); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		list = append(list, n)
	}
	return list
}

func all(r *Ring, f Filter) *cursor {
	m, err := f.compile()
	if err != nil {
		panic(err)
	}
	return &cursor{ring: r, filter: m, append: (*flow.Record).AppendCompact}
}

// readAll reads to the end of the ring.
func (c *cursor) readAll() (text string, lost uint64) {
	var buf []byte
	for more := true; more; {
		var n uint64
		buf, n, more = c.read(buf, false)
		lost += n
	}
	return string(buf), lost
}

// A record is kept as it was, although its sender uses request and record again.
func TestRingCopies(t *testing.T) {
	r := NewRing()
	path := []byte("/first")
	rec := &flow.Record{Time: time.Unix(0, 0).UTC(), Verdict: flow.Forwarded, Policy: "policy=a/b[egress 0]",
		Request: &l7rules.HTTPRequest{Proto: "HTTP/1.1", Method: []byte("GET"), Path: path, Host: []byte("h")}}
	want := string(rec.AppendCompact(nil)) + "\n"
	wantJSON := string(rec.AppendJSON(nil)) + "\n"
	r.Sink(rec)
	copy(path, "/other")
	*rec = flow.Record{}
	if got, lost := all(r, Filter{}).readAll(); got != want || lost != 0 {
		t.Errorf("%d lost\ngot  %swant %s", lost, got, want)
	}
	c := all(r, Filter{})
	c.append = (*flow.Record).AppendJSON
	if got, _ := c.readAll(); got != wantJSON {
		t.Errorf("got  %swant %s", got, wantJSON)
	}
}

func TestRingForgets(t *testing.T) {
	r := NewRing()
	slow := all(r, Filter{})
	const over = 100
	for i := range maxRecords + over {
		r.Sink(record(i))
	}
	text, lost := slow.readAll()
	got := numbers(t, text)
	if lost != over || len(got) != maxRecords || got[0] != over || got[len(got)-1] != maxRecords+over-1 {
		t.Errorf("%d lost, %d records", lost, len(got))
	}
	if text, lost := slow.readAll(); text != "" || lost != 0 {
		t.Errorf("read twice: %d lost, %q", lost, text)
	}
}

// Large requests push others out before memory grows beyond the bound, and one that is
// larger than the bound is still there.
func TestRingBytes(t *testing.T) {
	r := NewRing()
	big := func(n int) *flow.Record {
		return &flow.Record{Request: &l7rules.HTTPRequest{Proto: "HTTP/1.1", Method: []byte("GET"), Path: make([]byte, n)}}
	}
	for range 3000 {
		r.Sink(big(2048))
		if r.bytes > maxBytes {
			t.Fatalf("%d bytes", r.bytes)
		}
	}
	kept, held := 0, 0
	for i := range r.slots {
		held += cap(r.slots[i].request.buf)
	}
	for n := r.first; n < r.next; n++ {
		kept += len(r.slots[n%maxRecords].request.buf)
	}
	if kept != r.bytes || kept < maxBytes/2 || held > 2*maxBytes+maxRecords*keepBuffer {
		t.Errorf("%d bytes kept, %d counted, %d held", kept, r.bytes, held)
	}
	r.Sink(big(maxBytes))
	if r.next-r.first != 1 {
		t.Errorf("%d records", r.next-r.first)
	}
	for i := range maxRecords {
		r.Sink(record(i))
	}
	if r.bytes != 0 || r.next-r.first != maxRecords {
		t.Errorf("%d bytes of %d records without requests", r.bytes, r.next-r.first)
	}
}

func TestLast(t *testing.T) {
	r := NewRing()
	for i := range 1000 {
		rec := record(i)
		if i%10 == 0 {
			rec.Verdict = flow.Forwarded
		}
		r.Sink(rec)
	}
	for _, c := range []struct {
		filter      Filter
		n           int
		first, many int
	}{
		{Filter{}, 0, -1, 0},
		{Filter{}, 1, 999, 1},
		{Filter{}, 100, 900, 100},
		{Filter{}, 5000, 0, 1000},
		{Filter{Verdicts: []string{"forwarded"}}, 1, 990, 1},
		{Filter{Verdicts: []string{"forwarded"}}, 50, 500, 50},
		{Filter{Verdicts: []string{"forwarded"}}, 5000, 0, 100},
		{Filter{Verdicts: []string{"error"}}, 5, -1, 0},
	} {
		cur := all(r, c.filter)
		cur.last(c.n)
		text, lost := cur.readAll()
		got := numbers(t, text)
		if lost != 0 || len(got) != c.many || c.many > 0 && got[0] != c.first {
			t.Errorf("last %d of %+v: %d lost, %d records", c.n, c.filter, lost, len(got))
		}
	}
}

// Those who follow see every record of every sender, in order, while they keep up.
func TestFollow(t *testing.T) {
	r := NewRing()
	const senders, each = 4, 1000 // fewer than the ring holds
	var wg sync.WaitGroup
	got := make([]string, 3)
	ready := make(chan struct{})
	for i := range got {
		wg.Go(func() {
			c := all(r, Filter{})
			ready <- struct{}{}
			var buf []byte
			for more := true; more; {
				var lost uint64
				if buf, lost, more = c.read(buf, true); lost > 0 {
					t.Errorf("%d lost", lost)
				}
			}
			got[i] = string(buf)
		})
	}
	for range got {
		<-ready
	}
	var sending sync.WaitGroup
	for s := range senders {
		sending.Go(func() {
			for i := range each {
				r.Sink(record(s*each + i))
			}
		})
	}
	sending.Wait()
	r.Close()
	wg.Wait()
	for _, text := range got {
		// What came before Close is seen.
		next := make([]int, senders)
		list := numbers(t, text)
		for _, n := range list {
			if s := n / each; n%each != next[s] {
				t.Fatalf("%d where %d should be", n, next[s])
			}
			next[n/each]++
		}
		if len(list) != senders*each {
			t.Errorf("%d records", len(list))
		}
	}
}

func TestLeave(t *testing.T) {
	r := NewRing()
	c := all(r, Filter{})
	done := make(chan bool)
	go func() {
		_, _, more := c.read(nil, true)
		done <- more
	}()
	c.leave()
	if <-done {
		t.Error("goes on after its reader has left")
	}
}

func TestFilter(t *testing.T) {
	party := func(name string, id uint32, addr string) flow.Party {
		return flow.Party{Name: name, Identity: id, Addr: netip.MustParseAddrPort(addr)}
	}
	recs := map[string]*flow.Record{
		"get":    {Verdict: flow.Forwarded, Source: party("shop/front", 256, "10.0.0.1:4000"), Destination: party("shop/orders", 257, "10.0.0.2:80"), Request: &l7rules.HTTPRequest{}},
		"post":   {Verdict: flow.Dropped, Source: party("shop/front", 256, "10.0.0.1:4001"), Destination: party("shop/orders", 257, "10.0.0.2:80"), Request: &l7rules.HTTPRequest{}},
		"refuse": {Verdict: flow.Dropped, Source: party("other/front", 258, "[fd00::1]:5"), Destination: party("world", 10, "[2001:db8::1]:443"), Type: "tcp-connect"},
		"raw":    {Verdict: flow.Audit, Source: party("shop", 259, "10.0.1.1:0"), Type: "socket"},
	}
	for _, c := range []struct {
		filter Filter
		want   string
	}{
		{Filter{}, "get post raw refuse"},
		{Filter{Verdicts: []string{"DROPPED"}}, "post refuse"},
		{Filter{Verdicts: []string{"Forwarded", "audit"}}, "get raw"},
		{Filter{Types: []string{"http-request"}}, "get post"},
		{Filter{Types: []string{"http", "socket"}}, "get post raw"},
		{Filter{Types: []string{"htt", "http-", ""}}, ""},
		{Filter{From: []string{"shop/front"}}, "get post"},
		{Filter{From: []string{"shop/"}}, "get post"},
		{Filter{From: []string{"shop"}}, "raw"},
		{Filter{From: []string{"258"}}, "refuse"},
		{Filter{From: []string{"10.0.0.0/16"}}, "get post raw"},
		{Filter{From: []string{"10.0.0.1"}}, "get post"},
		{Filter{From: []string{"::ffff:10.0.0.1"}}, "get post"},
		{Filter{From: []string{"[fd00::1]"}}, "refuse"},
		{Filter{From: []string{"::/0"}}, "refuse"},
		{Filter{To: []string{"world", "shop/orders"}}, "get post refuse"},
		{Filter{To: []string{"2001:db8::1"}, Verdicts: []string{"dropped"}}, "refuse"},
		{Filter{To: []string{"world"}, Verdicts: []string{"forwarded"}}, ""},
		{Filter{From: []string{"shop/front"}, To: []string{"world"}}, ""},
		{Filter{To: []string{"0"}}, "raw"},
	} {
		m, err := c.filter.compile()
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, name := range []string{"get", "post", "raw", "refuse"} {
			if m.match(recs[name]) {
				got += " " + name
			}
		}
		if strings.TrimSpace(got) != c.want {
			t.Errorf("%+v: %s, want %s", c.filter, got, c.want)
		}
	}
	for _, f := range []Filter{{Verdicts: []string{"denied"}}, {From: []string{""}}, {To: []string{"a/b/c"}}, {To: []string{"/a"}}, {From: []string{"10.0.0.0/33"}}} {
		if f.Check() == nil {
			t.Errorf("%+v: no error", f)
		}
	}
}

func BenchmarkSink(b *testing.B) {
	r := NewRing()
	rec := &flow.Record{Request: &l7rules.HTTPRequest{Proto: "HTTP/1.1", Method: []byte("GET"), Path: []byte("/public/index.html"), Host: []byte("orders:8080")}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Sink(rec)
		}
	})
}
