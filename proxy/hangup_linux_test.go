package proxy

import (
	"net"
	"testing"
	"time"
)

func watchedPair(t *testing.T) (far *net.TCPConn, s *Stream, hints chan struct{}) {
	t.Helper()
	h, err := newHangups()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	far, near := tcpPair(t)
	s = NewStream(near)
	s.watch.by = h
	hints = make(chan struct{}, 100)
	s.Watch(func() { hints <- struct{}{} })
	return far, s, hints
}

func wantHint(t *testing.T, hints chan struct{}) {
	t.Helper()
	select {
	case <-hints:
	case <-time.After(patience):
		t.Fatal("no hint came")
	}
}

func TestWatch(t *testing.T) {
	t.Run("FIN", func(t *testing.T) {
		far, s, hints := watchedPair(t)
		if got := s.Peek(); got != Alive {
			t.Errorf("state %d", got)
		}
		far.CloseWrite()
		wantHint(t, hints)
		if got := s.Peek(); got != Ended {
			t.Errorf("state %d", got)
		}
		// A RST later is news.
		far.SetLinger(0)
		far.Close()
		wantHint(t, hints)
		if got := s.Peek(); got != Reset {
			t.Errorf("state %d", got)
		}
	})
	t.Run("bytes before a FIN", func(t *testing.T) {
		far, s, hints := watchedPair(t)
		far.Write([]byte("x"))
		far.Close()
		wantHint(t, hints)
		if got := s.Peek(); got != Pending {
			t.Errorf("state %d", got)
		}
		s.Read(make([]byte, 1))
		if got := s.Peek(); got != Ended {
			t.Errorf("state %d", got)
		}
	})
	t.Run("data makes no hint", func(t *testing.T) {
		far, s, hints := watchedPair(t)
		for range 100 {
			far.Write([]byte("x"))
			s.Read(make([]byte, 1))
			s.Write([]byte("y"))
		}
		if len(hints) != 0 {
			t.Errorf("%d hints", len(hints))
		}
		far.Close()
		wantHint(t, hints)
	})
	t.Run("not after Unwatch", func(t *testing.T) {
		far, s, hints := watchedPair(t)
		s.Unwatch()
		far.Close()
		s.SetReadDeadline(time.Now().Add(patience))
		s.Read(make([]byte, 1))
		other, near := tcpPair(t) // its hint comes after any of s would have
		o := NewStream(near)
		o.watch.by = s.watch.by
		second := make(chan struct{}, 10)
		o.Watch(func() { second <- struct{}{} })
		other.Close()
		wantHint(t, second)
		if len(hints) != 0 {
			t.Error("a hint came after Unwatch")
		}
	})
	t.Run("after the end of the descriptor", func(t *testing.T) {
		far, s, _ := watchedPair(t)
		s.Close()
		if n := len(s.watch.by.streams); n != 0 {
			t.Errorf("%d streams are still watched", n)
		}
		far.Close()
	})
}
