// Package origin is the web service behind the end-to-end tests, the demo and
// the torture: it answers every request and remembers each one that reached it,
// so that a test can show that a denied one did not.
package origin

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
)

// Request is one request that reached the origin, whole.
type Request struct {
	Method string
	Target string // as it stood in the request line
	Proto  string
	Host   string
	Length int64  // bytes of body
	SHA256 string // of the body, in hex
	Remote netip.AddrPort
}

// Server is a running origin.
type Server struct {
	Port int

	http  http.Server
	mu    sync.Mutex
	log   []Request
	conns int
}

// Start listens on one port, the same on each host (IP literals), and serves:
//
//	GET  /download/N   N bytes of [Bytes]
//	POST /upload       the SHA-256 of the body, in hex
//	else               "METHOD TARGET\n"
//
// Every answer carries the body's length and hash as X-Body-Length and
// X-Body-Sha256.
func Start(hosts ...string) (*Server, error) { return StartAt(0, hosts...) }

// StartAt is Start on a given port, for a policy file that names one.
func StartAt(port int, hosts ...string) (*Server, error) {
	listeners, port, err := listen(port, hosts)
	if err != nil {
		return nil, err
	}
	s := &Server{Port: port}
	s.http.Handler = s
	s.http.ErrorLog = log.New(io.Discard, "", 0)
	s.http.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.mu.Lock()
			s.conns++
			s.mu.Unlock()
		}
	}
	for _, l := range listeners {
		go s.http.Serve(l)
	}
	return s, nil
}

// listen listens on port of every host, or on one that is free on all if it is 0.
func listen(want int, hosts []string) ([]net.Listener, int, error) {
	const tries = 20
	var err error
	for range tries {
		var listeners []net.Listener
		port := want
		for _, host := range hosts {
			var l net.Listener
			l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
			if err != nil {
				break
			}
			listeners = append(listeners, l)
			port = l.Addr().(*net.TCPAddr).Port
		}
		if err == nil {
			return listeners, port, nil
		}
		for _, l := range listeners {
			l.Close()
		}
	}
	return nil, 0, fmt.Errorf("listen on port %d of %v: %w", want, hosts, err)
}

// Close stops the server and cuts its connections.
func (s *Server) Close() error { return s.http.Close() }

// Requests returns what has reached the origin since the last Reset, in the
// order in which the bodies ended.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// Conns returns the number of connections accepted since Start.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// Reset forgets the requests.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		return // half a request is not one
	}
	hash := hex.EncodeToString(sum.Sum(nil))
	remote, _ := netip.ParseAddrPort(r.RemoteAddr)
	s.mu.Lock()
	s.log = append(s.log, Request{r.Method, r.RequestURI, r.Proto, r.Host, n, hash, remote})
	s.mu.Unlock()

	w.Header().Set("X-Body-Length", strconv.FormatInt(n, 10))
	w.Header().Set("X-Body-Sha256", hash)
	var size int64
	if _, err := fmt.Sscanf(r.URL.Path, "/download/%d", &size); err == nil {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		io.Copy(w, Bytes(size))
		return
	}
	if r.URL.Path == "/upload" {
		fmt.Fprintln(w, hash)
		return
	}
	fmt.Fprintf(w, "%s %s\n", r.Method, r.RequestURI)
}

// Bytes returns n bytes that are cheap to make and never repeat at a distance
// that a lost or doubled buffer could hide behind: 8-byte words of a sequence
// that takes each value once.
func Bytes(n int64) io.Reader { return io.LimitReader(new(counter), n) }

type counter struct {
	next uint64
	rest []byte // of the last word
	word [8]byte
}

func (c *counter) Read(p []byte) (int, error) {
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	for n < len(p) {
		c.next += 0x9e3779b97f4a7c15 // odd, so that it takes each value once
		binary.LittleEndian.PutUint64(c.word[:], c.next)
		m := copy(p[n:], c.word[:])
		c.rest = c.word[m:]
		n += m
	}
	return n, nil
}
