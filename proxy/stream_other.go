//go:build !linux

package proxy

// Elsewhere a Stream goes the ordinary way of package net: the same contract,
// except that Fill holds memory while it waits.

func (s *Stream) read() (int, error) {
	for {
		p := s.in
		if s.fill != nil {
			if p = s.fill.room(); len(p) == 0 {
				return 0, ErrBufferFull
			}
		}
		n, err := s.conn.Read(p)
		if s.fill != nil {
			s.fill.w += n
			s.fill.ReleaseIfEmpty()
		}
		if err != nil || s.each == nil || !s.each() {
			return n, err
		}
	}
}

func (s *Stream) writeAll() error {
	n, err := s.conn.Write(s.out)
	s.out = s.out[n:]
	return err
}

func (s *Stream) tryRead(uintptr) bool  { return true }
func (s *Stream) tryWrite(uintptr) bool { return true }
