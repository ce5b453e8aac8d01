//go:build !race

package httpproxy

import (
	"runtime"
	"testing"
	"time"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// A judged keep-alive request costs no allocation.
func TestRequestDoesNotAllocate(t *testing.T) {
	b := newBench(t, func(flow.Request) l7rules.Decision { return l7rules.Decision{Verdict: flow.Forwarded} })
	client := b.dial(t)
	send(t, client, get)
	up := b.accept(t)
	expect(t, up, get)
	send(t, up, okay)
	expect(t, client, okay)
	in, out, buf := []byte(get), []byte(okay), make([]byte, 1024)
	client.SetDeadline(time.Time{})
	up.SetDeadline(time.Time{})
	b.quiet.Store(true)
	exchange := func() {
		client.Write(in)
		if n, err := up.Read(buf); n != len(in) {
			t.Fatalf("origin read %d, %v", n, err)
		}
		up.Write(out)
		if n, err := client.Read(buf); n != len(out) {
			t.Fatalf("client read %d, %v", n, err)
		}
	}
	if n := testing.AllocsPerRun(1000, exchange); n != 0 {
		t.Errorf("%v allocations per request", n)
	}
}

// Connections that wait hold no buffers.
func TestIdleConnections(t *testing.T) {
	const conns = 500
	b := newBench(t, judge)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range conns {
		client := b.dial(t)
		send(t, client, get)
		up := b.accept(t)
		expect(t, up, get)
		send(t, up, okay)
		expect(t, client, okay)
	}
	runtime.GC()
	runtime.GC() // the second one empties the pools
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / conns; each > 8<<10 {
		t.Errorf("%d bytes of heap for each idle connection, client, origin and test included", each)
	} else {
		t.Logf("%d bytes of heap, %d of stack for each idle connection, client, origin and test included",
			each, (int64(after.StackInuse)-int64(before.StackInuse))/conns)
	}
}
