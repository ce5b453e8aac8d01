package proxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// Sizes of the memory a Buffer borrows. bulkLimit bounds what slow readers of large
// bodies can hold (64 x 256 KiB = 16 MiB, or as many kernel pipes); whoever comes
// later goes on with a small one.
const (
	smallSize = 16 << 10
	largeSize = 64 << 10
	bulkSize  = 256 << 10
	bulkLimit = 64
)

// ErrBufferFull says that a Buffer holds unread bytes in all its memory.
var ErrBufferFull = errors.New("buffer full")

// Buffers lends memory to the Buffers of many connections. The zero value is
// ready; it must not be copied.
type Buffers struct {
	small, large, bulk sync.Pool
	bulkOut            atomic.Int32
}

// Buffer holds bytes on their way through a connection: those between what was
// consumed and what was read. It has memory only while it holds bytes or is
// being read into. It is for one goroutine at a time.
type Buffer struct {
	from *Buffers
	mem  *[]byte
	r, w int
	want int // size to take next time; 0 is smallSize
}

// NewBuffer returns an empty buffer without memory.
func (p *Buffers) NewBuffer() Buffer { return Buffer{from: p} }

// Len returns the number of unread bytes.
func (b *Buffer) Len() int { return b.w - b.r }

// Bytes returns the unread bytes. They are valid until the next Fill, Consume,
// Grow or Release, and may be changed in place.
func (b *Buffer) Bytes() []byte {
	if b.mem == nil {
		return nil
	}
	return (*b.mem)[b.r:b.w]
}

// Consume marks the first n unread bytes as read. Their content stays where it
// is until the next Fill, Grow or Release.
func (b *Buffer) Consume(n int) { b.r += n }

// Truncate drops all unread bytes after the first n.
func (b *Buffer) Truncate(n int) { b.w = b.r + n }

// Bulk asks for large memory while a long body passes (on), or for the small
// kind again. It takes effect when the buffer is next empty.
func (b *Buffer) Bulk(on bool) {
	if on {
		b.want = bulkSize
	} else {
		b.want = 0
	}
}

// Grow makes room for a head that does not fit into the usual memory: 64 KiB in
// all. It returns ErrBufferFull if there are that many unread bytes already.
func (b *Buffer) Grow() error {
	if b.mem == nil {
		return nil
	}
	if b.Len() >= largeSize {
		return ErrBufferFull
	}
	if len(*b.mem) >= largeSize {
		return nil
	}
	mem := b.from.take(largeSize)
	n := copy(*mem, b.Bytes())
	b.from.give(b.mem)
	b.mem, b.r, b.w = mem, 0, n
	return nil
}

// Release gives the memory back. Unread bytes are lost.
func (b *Buffer) Release() {
	if b.mem != nil {
		b.from.give(b.mem)
		b.mem = nil
	}
	b.r, b.w = 0, 0
}

// ReleaseIfEmpty gives the memory back unless there are unread bytes in it.
func (b *Buffer) ReleaseIfEmpty() {
	if b.r == b.w {
		b.Release()
	}
}

// Move moves n bytes that nobody needs to see from src to dst, and no
// others. b must be empty. The kernel moves them (splice), which costs a tenth less than
// the largest buffer; beyond bulkLimit at a time they go through b's memory. It
// returns how many were moved; fewer than n only with an error, which is io.EOF at the
// end of src. After os.ErrDeadlineExceeded it may be called again for the rest.
func (b *Buffer) Move(dst, src *Stream, n int64) (int64, error) {
	b.Release()
	if b.from.enterBulk() {
		defer b.from.leaveBulk()
		moved, err := dst.conn.ReadFrom(&io.LimitedReader{R: src.conn, N: n})
		if err == nil && moved < n {
			err = io.EOF
		}
		return moved, err
	}
	room := b.room()
	defer b.Release()
	var moved int64
	for moved < n {
		k, err := src.Read(room[:min(int64(len(room)), n-moved)])
		if err != nil {
			return moved, err
		}
		k, err = dst.Write(room[:k])
		moved += int64(k)
		if err != nil {
			return moved, err
		}
	}
	return moved, nil
}

// room returns where to read into, taking or making place as needed.
func (b *Buffer) room() []byte {
	if b.r == b.w {
		b.r, b.w = 0, 0
		if b.mem != nil && b.want > len(*b.mem) {
			b.Release()
		}
	}
	if b.mem == nil {
		b.mem = b.from.take(max(b.want, smallSize))
	}
	m := *b.mem
	if b.w == len(m) && b.r > 0 {
		b.w = copy(m, m[b.r:b.w])
		b.r = 0
	}
	return m[b.w:]
}

func (p *Buffers) take(size int) *[]byte {
	pool := &p.small
	switch size {
	case largeSize:
		pool = &p.large
	case bulkSize:
		if !p.enterBulk() {
			size = smallSize
			break
		}
		pool = &p.bulk
	}
	if m, ok := pool.Get().(*[]byte); ok {
		return m
	}
	m := make([]byte, size)
	return &m
}

func (p *Buffers) give(m *[]byte) {
	switch len(*m) {
	case smallSize:
		p.small.Put(m)
	case largeSize:
		p.large.Put(m)
	case bulkSize:
		p.leaveBulk()
		p.bulk.Put(m)
	}
}

func (p *Buffers) enterBulk() bool {
	if p.bulkOut.Add(1) > bulkLimit {
		p.bulkOut.Add(-1)
		return false
	}
	return true
}

func (p *Buffers) leaveBulk() { p.bulkOut.Add(-1) }
