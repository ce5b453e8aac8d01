package proxy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func streams(t testing.TB) (a, b *Stream) {
	t.Helper()
	c, d := tcpPair(t)
	return NewStream(c), NewStream(d)
}

func TestStreamReadsAndWrites(t *testing.T) {
	a, b := streams(t)
	var p Buffers
	buf := p.NewBuffer()
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		a.Write(big)
		a.CloseWrite()
	}()
	var got []byte
	for {
		if err := b.Fill(&buf); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf.Bytes()...)
		buf.Consume(buf.Len())
		buf.Bulk(len(got) > 100000)
	}
	if !bytes.Equal(got, big) {
		t.Errorf("read %d bytes that are not the %d written", len(got), len(big))
	}
	// The other direction is still open.
	if _, err := b.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 2)
	if n, err := a.Read(one); n != 1 || err != nil || one[0] != 'x' {
		t.Errorf("read %d, %v", n, err)
	}
}

// A FIN that came with the last bytes is seen without anything else coming.
func TestStreamSeesFinThatCameWithData(t *testing.T) {
	for range 100 {
		a, b := streams(t)
		a.Write([]byte("x"))
		a.CloseWrite()
		b.SetReadDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(b); err != nil || string(got) != "x" {
			t.Fatalf("read %q, %v", got, err)
		}
		a.Close()
		b.Close()
	}
}

func TestFillHoldsNoMemoryWhileItWaits(t *testing.T) {
	a, b := streams(t)
	var p Buffers
	buf := p.NewBuffer()
	b.SetReadDeadline(time.Now().Add(time.Millisecond))
	if err := b.Fill(&buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if buf.mem != nil {
		t.Error("memory was held over a wait")
	}
	b.SetReadDeadline(time.Time{})
	a.Write([]byte("x"))
	if err := b.Fill(&buf); err != nil || string(buf.Bytes()) != "x" {
		t.Fatalf("%q, %v", buf.Bytes(), err)
	}
	// Unread bytes stay.
	b.Interrupt()
	if err := b.Fill(&buf); !errors.Is(err, os.ErrDeadlineExceeded) || string(buf.Bytes()) != "x" {
		t.Fatalf("%q, %v", buf.Bytes(), err)
	}
}

func TestInterruptEndsWait(t *testing.T) {
	_, b := streams(t)
	errs := make(chan error)
	go func() {
		_, err := b.Read(make([]byte, 1))
		errs <- err
	}()
	b.Interrupt()
	if err := <-errs; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

func TestClosedStream(t *testing.T) {
	c, _ := tcpPair(t)
	c.Close()
	s := NewStream(c)
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Error("read from a closed connection")
	}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("wrote to a closed connection")
	}
	if s.Peek() != Reset {
		t.Error("a closed connection is alive")
	}
}

func TestReset(t *testing.T) {
	a, b := streams(t)
	a.Reset()
	b.SetReadDeadline(time.Now().Add(patience))
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

// Bytes that come after the answer do not destroy it.
func TestCloseGracefully(t *testing.T) {
	a, b := streams(t)
	var p Buffers
	buf := p.NewBuffer()
	a.Write([]byte(strings.Repeat("x", 100000)))
	b.Write([]byte("answer"))
	done := make(chan error)
	go func() { done <- b.CloseGracefully(&buf, patience, 1<<20) }()
	a.SetReadDeadline(time.Now().Add(patience))
	got, err := io.ReadAll(a)
	if err != nil || string(got) != "answer" {
		t.Fatalf("read %q, %v", got, err)
	}
	a.Write([]byte("more"))
	a.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A client that never stops sending is cut off.
func TestCloseGracefullyIsBounded(t *testing.T) {
	a, b := streams(t)
	var p Buffers
	buf := p.NewBuffer()
	done := make(chan error)
	go func() { done <- b.CloseGracefully(&buf, patience, 1<<20) }()
	total := 0
	for {
		n, err := a.Write(make([]byte, 1<<16))
		if total += n; err != nil {
			break
		}
	}
	if err := <-done; err != nil || total < 1<<20 {
		t.Errorf("cut off after %d bytes, %v", total, err)
	}
}

func TestBufferGrowsToItsLimit(t *testing.T) {
	a, b := streams(t)
	var p Buffers
	buf := p.NewBuffer()
	go a.Write(bytes.Repeat([]byte("y"), largeSize+10))
	grown := 0
	for {
		err := b.Fill(&buf)
		if err == ErrBufferFull {
			if err := buf.Grow(); err == ErrBufferFull {
				break
			}
			grown++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if buf.Len() != largeSize || grown != 1 || strings.Trim(string(buf.Bytes()), "y") != "" {
		t.Errorf("%d bytes after growing %d times", buf.Len(), grown)
	}
	buf.Consume(largeSize - 5)
	if err := b.Fill(&buf); err != nil || buf.Len() < 6 {
		t.Errorf("%d bytes after making room, %v", buf.Len(), err)
	}
	buf.Release()
	if buf.Len() != 0 || buf.Bytes() != nil {
		t.Error("bytes after release")
	}
}

// However many connections move large bodies, bulk memory is bounded.
func TestBulkMemoryIsBounded(t *testing.T) {
	var p Buffers
	bufs := make([]Buffer, 2*bulkLimit)
	bulk := 0
	for i := range bufs {
		bufs[i] = p.NewBuffer()
		bufs[i].Bulk(true)
		if len(bufs[i].room()) == bulkSize {
			bulk++
		}
	}
	if bulk != bulkLimit {
		t.Errorf("%d bulk buffers, limit %d", bulk, bulkLimit)
	}
	for i := range bufs {
		bufs[i].Release()
	}
	if n := p.bulkOut.Load(); n != 0 {
		t.Errorf("%d still counted", n)
	}
}

func BenchmarkStreamPingPong(b *testing.B) {
	x, y := streams(b)
	var p Buffers
	go func() {
		buf := p.NewBuffer()
		for y.Fill(&buf) == nil {
			y.Write(buf.Bytes())
			buf.Consume(buf.Len())
		}
	}()
	x.SetReadDeadline(time.Time{})
	buf, msg := p.NewBuffer(), []byte("ping")
	b.ReportAllocs()
	for b.Loop() {
		x.Write(msg)
		if err := x.Fill(&buf); err != nil {
			b.Fatal(err)
		}
		buf.Consume(buf.Len())
	}
}

// Move is the same through the kernel and, when too many do so, through the buffer.
func TestMove(t *testing.T) {
	for _, slots := range []int32{0, bulkLimit} {
		srcFar, src := streams(t)
		dst, dstFar := streams(t)
		var p Buffers
		p.bulkOut.Store(slots)
		buf := p.NewBuffer()
		text := strings.Repeat("0123456789", 50000)
		go func() {
			io.WriteString(srcFar, text[:100])
			src.Interrupt()
			io.WriteString(srcFar, text[100:])
			srcFar.CloseWrite()
		}()
		got := make(chan string)
		go func() {
			b, _ := io.ReadAll(dstFar)
			got <- string(b)
		}()
		const want = 200000
		for left := int64(want); left > 0; {
			n, err := buf.Move(dst, src, left)
			left -= n
			if errors.Is(err, os.ErrDeadlineExceeded) {
				src.SetReadDeadline(time.Now().Add(patience))
			} else if err != nil || left != 0 {
				t.Fatalf("moved %d of %d: %v", n, left, err)
			}
		}
		n, err := buf.Move(dst, src, 1<<40)
		if n != int64(len(text)-want) || err != io.EOF {
			t.Errorf("moved %d at the end, %v", n, err)
		}
		dst.CloseWrite()
		if g := <-got; g != text {
			t.Errorf("slots %d: %d bytes arrived of %d", slots, len(g), len(text))
		}
		if p.bulkOut.Load() != slots {
			t.Error("slots were not given back")
		}
	}
}
