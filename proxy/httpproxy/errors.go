package httpproxy

import (
	"errors"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// unreadable is why a message was refused. Its text goes into the record and,
// for requests, into the answer.
type unreadable string

func (e unreadable) Error() string { return string(e) }

func isUnreadable(err error) bool {
	_, ok := err.(unreadable)
	return ok
}

// verdictOf tells what policy excludes as a whole from what cannot be understood.
func verdictOf(err error) flow.Verdict {
	if err == errConnect || err == errHTTP2 {
		return flow.Dropped
	}
	return flow.Error
}

// badUpload is a request body that turned out unreadable on its way.
type badUpload struct{ error }

func (e *badUpload) Unwrap() error { return e.error }

// dialError is a failure to reach the upstream.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// errMore says that the bytes so far are a good beginning.
var errMore = errors.New("more bytes needed")

var (
	// errUpstreamGone: the upstream closed while the client was waited for.
	errUpstreamGone = errors.New("upstream closed the connection")
	// errClientGone: the client reset its connection while the upstream was waited for.
	errClientGone = errors.New("client reset the connection")
	// errTimeout: the client took too long over a head.
	errTimeout = errors.New("client took too long")
)

// One of these for each line of the table in docs/http.md.
const (
	errTLS              unreadable = "TLS under an HTTP rule: a rule with serverNames judges TLS"
	errNotHTTP          unreadable = "not HTTP: the first byte begins no request"
	errHTTP2            unreadable = "HTTP/2 without TLS is not carried here, use HTTP/1.1"
	errHeadSize         unreadable = "head larger than 64 KiB"
	errFieldCount       unreadable = "more than 128 header fields"
	errBareLF           unreadable = "line ends in LF without CR"
	errBareCR           unreadable = "CR without LF"
	errControl          unreadable = "control character in the head"
	errRequestLine      unreadable = "request line is not METHOD SP TARGET SP HTTP/1.x"
	errMethod           unreadable = "method is not a token"
	errVersion          unreadable = "version is neither HTTP/1.1 nor HTTP/1.0"
	errStatusLine       unreadable = "status line is not HTTP/1.x SP 3DIGIT"
	errFold             unreadable = "header field folded over lines"
	errNoColon          unreadable = "header line without colon"
	errFieldName        unreadable = "header field name is not a token"
	errSpaceColon       unreadable = "space between header field name and colon"
	errConnect          unreadable = "CONNECT is not carried"
	errTarget           unreadable = "request target is neither a path nor an http URL"
	errTargetByte       unreadable = "character in the request target that must be percent-encoded"
	errFragment         unreadable = "fragment in the request target"
	errBackslash        unreadable = "backslash in the path"
	errPercent          unreadable = "percent sign without two hex digits in the request target"
	errEncodedControl   unreadable = "encoded control character in the path"
	errEncodedSlash     unreadable = "encoded slash or backslash in the path"
	errDoubleEncoding   unreadable = "doubly encoded dot, slash, backslash, NUL or percent sign in the path"
	errOverlong         unreadable = "overlong or impossible UTF-8 in the path"
	errDotParameter     unreadable = "dot segment with a parameter in the path"
	errAsterisk         unreadable = "target * is for OPTIONS only"
	errScheme           unreadable = "absolute request target with a scheme other than http"
	errAuthority        unreadable = "absolute request target with user information or no host"
	errHostMissing      unreadable = "HTTP/1.1 request without Host"
	errHostTwice        unreadable = "more than one Host"
	errHostByte         unreadable = "Host is not a host name or address with an optional port"
	errHostDiffers      unreadable = "Host and the authority of the request target differ"
	errLengthTwice      unreadable = "more than one Content-Length"
	errLength           unreadable = "Content-Length is not a plain decimal number"
	errLengthAndCoding  unreadable = "Content-Length and Transfer-Encoding together"
	errCoding           unreadable = "Transfer-Encoding other than a single chunked"
	errCodingVersion    unreadable = "Transfer-Encoding in HTTP/1.0"
	errConnectionOption unreadable = "Connection names a header field that must not be removed"
	errExpect           unreadable = "Expect other than 100-continue"
	errChunkSize        unreadable = "chunk size is not a hex number below 2^63"
	errChunkExtension   unreadable = "chunk extension unreadable or longer than 256 bytes"
	errChunkEnd         unreadable = "chunk data not followed by CRLF"
	errTrailer          unreadable = "trailer section unreadable or larger than 8 KiB"
	errTrailerName      unreadable = "trailer names a field that must stand in the head"
	errBodyForbidden    unreadable = "body in a response that must not have one"
	errInterim          unreadable = "too many interim responses"
	errSwitch           unreadable = "101 without an upgrade asked for"
	errSurplus          unreadable = "bytes after the end of the response"
	errTruncatedHead    unreadable = "response ended in the middle of its head"
	errChunkedTo10      unreadable = "chunked response to an HTTP/1.0 request"
)
