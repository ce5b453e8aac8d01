package httpproxy

import (
	"bytes"
	"io"
	"math"
)

// framing is how a body is delimited.
type framing uint8

const (
	noBody framing = iota
	lengthBody
	chunkedBody
	closeBody // responses only: by the end of the connection
)

// Limits of a chunked body (RFC 9112, section 7.1).
const (
	maxChunkDigits    = 16
	maxChunkExtension = 256
	maxTrailer        = 8 << 10
)

// framer finds a body's end and brings its framing to canonical form.
type framer struct {
	kind    framing
	done    bool
	state   chunkState
	left    int64 // bytes to come of the body or of the current chunk
	trailer int   // bytes of trailer so far
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkData
	chunkEnd
	chunkTrailer
)

// start begins a body; length is for lengthBody.
func (f *framer) start(kind framing, length int64) {
	*f = framer{kind: kind, done: kind == noBody}
	if kind == lengthBody {
		f.left = length
	}
}

// take reads the body's next bytes at the beginning of b. It consumes b[:used],
// and leaves in b[:out], which is no longer, what is to be sent on for it. What
// is left over is behind the body if f.done, else an incomplete line.
//
// Chunks keep their sizes; extensions and leading zeros are dropped, so that what
// is sent on is exactly what was understood.
func (f *framer) take(b []byte) (out, used int, err error) {
	switch {
	case f.done:
		return 0, 0, nil
	case f.kind == closeBody:
		return len(b), len(b), nil
	case f.kind == lengthBody:
		n := int(min(f.left, int64(len(b))))
		f.left -= int64(n)
		f.done = f.left == 0
		return n, n, nil
	}
	w, r := 0, 0
	for !f.done {
		if f.state == chunkData {
			n := int(min(f.left, int64(len(b)-r)))
			if w != r {
				copy(b[w:], b[r:r+n])
			}
			w, r = w+n, r+n
			if f.left -= int64(n); f.left > 0 {
				break
			}
			f.state = chunkEnd
		}
		n := bytes.IndexByte(b[r:], '\n')
		if n < 0 {
			return w, r, f.checkPartial(b[r:])
		}
		wrote, err := f.line(b[w:], b[r:r+n+1])
		if err != nil {
			return w, r, err
		}
		w, r = w+wrote, r+n+1
	}
	return w, r, nil
}

// bulkBody is how much of a body is worth moving without a look.
const bulkBody = 64 << 10

// opaque returns how many of the body's next bytes need no look, if they are worth
// moving otherwise than by take; used is how many came at once last time.
func (f *framer) opaque(used int) int64 {
	switch {
	case f.kind == closeBody && used >= bulkBody/4:
		return math.MaxInt64
	case f.kind == lengthBody && f.left >= bulkBody:
		return f.left
	case f.kind == chunkedBody && f.state == chunkData && f.left >= 4*bulkBody:
		return f.left
	}
	return 0
}

// skip counts n bytes that were moved as opaque.
func (f *framer) skip(n int64) {
	f.left -= n
	switch {
	case f.left > 0 || f.kind == closeBody:
	case f.kind == chunkedBody:
		f.state = chunkEnd
	default:
		f.done = true
	}
}

// ended says what the end of the stream means here.
func (f *framer) ended() error {
	if f.kind != closeBody {
		return io.ErrUnexpectedEOF
	}
	f.done = true
	return nil
}

// checkPartial judges a line whose end has not come: it must not grow for ever,
// nor may anything but CRLF be waited for at the end of a chunk.
func (f *framer) checkPartial(b []byte) error {
	switch {
	case f.state == chunkEnd && len(b) > 0 && (b[0] != '\r' || len(b) > 1):
		return errChunkEnd
	case f.state == chunkSize && len(b) > maxChunkDigits+maxChunkExtension+1:
		return errChunkExtension
	case f.state == chunkTrailer && f.trailer+len(b) > maxTrailer:
		return errTrailer
	}
	return nil
}

// line takes in a line of the framing, LF included, and writes its canonical form to dst,
// which begins at or before it.
func (f *framer) line(dst, b []byte) (int, error) {
	if f.state == chunkEnd {
		if string(b) != "\r\n" {
			return 0, errChunkEnd
		}
		f.state = chunkSize
		return copy(dst, "\r\n"), nil
	}
	if len(b) < 2 || b[len(b)-2] != '\r' {
		return 0, errBareLF
	}
	b = b[:len(b)-2]
	if f.state == chunkTrailer {
		return f.trailerLine(dst, b)
	}

	digits := 0
	for digits < len(b) && unhex(b[digits]) >= 0 {
		if digits++; digits > maxChunkDigits {
			return 0, errChunkSize
		}
		f.left = f.left<<4 | int64(unhex(b[digits-1]))
	}
	if digits == 0 || f.left < 0 {
		return 0, errChunkSize
	}
	if extension := b[digits:]; len(extension) > 0 {
		if extension[0] != ';' {
			return 0, errChunkSize
		}
		if len(extension) > maxChunkExtension {
			return 0, errChunkExtension
		}
		for _, c := range extension {
			if class[c]&isValue == 0 {
				return 0, errChunkExtension
			}
		}
	}
	f.state = chunkData
	if f.left == 0 {
		f.state = chunkTrailer
	}
	size := b[:digits]
	for len(size) > 1 && size[0] == '0' {
		size = size[1:]
	}
	n := copy(dst, size)
	return n + copy(dst[n:], "\r\n"), nil
}

// trailerLine takes in a line of the trailer section, or the empty one that ends the body.
func (f *framer) trailerLine(dst, b []byte) (int, error) {
	if len(b) == 0 {
		f.done = true
		return copy(dst, "\r\n"), nil
	}
	if f.trailer += len(b) + 2; f.trailer > maxTrailer {
		return 0, errTrailer
	}
	l, err := parseLine(b, 0)
	if err != nil {
		return 0, errTrailer
	}
	if !trailerAllowed(b[:l.colon]) {
		return 0, errTrailerName
	}
	gap := min(l.value-l.colon-1, 1)
	w := copy(dst, b[:l.colon])
	w += copy(dst[w:], ": "[:1+gap])
	w += copy(dst[w:], b[l.value:l.end])
	return w + copy(dst[w:], "\r\n"), nil
}

// trailerAllowed tells apart what may come after the body from what servers act
// upon before it: framing, routing, authentication and content (RFC 9110, section 6.5.1).
func trailerAllowed(name []byte) bool {
	if kindOf(name) != otherField {
		return false
	}
	for _, n := range [...]string{"authorization", "proxy-authorization", "cookie", "set-cookie", "content-encoding",
		"content-type", "content-range", "cache-control", "if-match", "if-none-match", "if-modified-since",
		"if-unmodified-since", "if-range", "range", "max-forwards", "origin", "forwarded", "x-forwarded-for",
		"x-forwarded-host", "x-forwarded-proto", "x-http-method-override", "keep-alive", "proxy-connection"} {
		if equalFold(name, n) {
			return false
		}
	}
	return true
}
