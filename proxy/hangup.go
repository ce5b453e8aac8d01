package proxy

import "sync/atomic"

// State is what Peek found at the head of a stream.
type State uint8

const (
	Alive   State = iota // open, nothing to read now
	Pending              // there are bytes to read, perhaps followed by the end
	Ended                // the far end sent FIN, and everything before it was read
	Reset                // the connection is broken: nothing can be sent either
)

// Watch asks for fn to be called, from another goroutine, as soon as the far end
// closes its direction or resets the connection, even while nobody reads s.
// fn may be called more than once and for no reason: it is a hint to Peek, and
// must not block. Watching costs nothing while the connection is in use.
//
// It does nothing on streams that do not belong to a Server's session, and on
// systems other than Linux.
func (s *Stream) Watch(fn func()) {
	if s.watch.by != nil {
		s.watch.by.add(s, fn)
	}
}

// Unwatch undoes Watch. After it returns fn is not called any more.
func (s *Stream) Unwatch() {
	if s.watch.by != nil {
		s.watch.by.remove(s)
	}
}

// watched is the part of a Stream that belongs to the hangups it is watched by.
type watched struct {
	by *hangups     // nil: by nobody
	fd atomic.Int32 // key in by.streams while watched, else 0
}

// watched reports whether the end of s is noticed without reading.
func (s *Stream) watched() bool { return s.watch.fd.Load() != 0 }
