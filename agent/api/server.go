// Package api is how the commands ask a running agent: HTTP with two resources on a
// unix socket that only its owner may use.
//
//	GET /status     an agent.Status as JSON
//	GET /records    recent records, one a line; see Query
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/weir-proxy/weir/agent"
	"github.com/weir-proxy/weir/agent/records"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// maxObservers bounds how many watch the records at a time.
const maxObservers = 64

// gather is how long an observer lets records come together before it writes them.
const gather = 10 * time.Millisecond

// goodbye is how long answers may take once the server is to end.
const goodbye = time.Second

// Serve answers on l until ctx is done; l is closed then, and the ring too.
func Serve(ctx context.Context, l net.Listener, status func() agent.Status, ring *Ring) error {
	s := &server{status: status, ring: ring, observers: make(chan struct{}, maxObservers)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", s.serveStatus)
	mux.HandleFunc("GET /records", s.serveRecords)
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    1 << 16,
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		ring.Close()
		end, cancel := context.WithTimeout(context.Background(), goodbye)
		defer cancel()
		if srv.Shutdown(end) != nil {
			srv.Close() // an observer that does not read
		}
	})
	err := srv.Serve(l)
	if stop() {
		return fmt.Errorf("answer commands: %w", err)
	}
	<-ended
	return nil
}

type server struct {
	status    func() agent.Status
	ring      *Ring
	observers chan struct{} // one value for each
}

func (s *server) serveStatus(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(s.status())
}

func (s *server) serveRecords(w http.ResponseWriter, r *http.Request) {
	q, c, err := s.cursor(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case s.observers <- struct{}{}:
		defer func() { <-s.observers }()
	default:
		http.Error(w, fmt.Sprintf("%d others observe the records already", maxObservers), http.StatusServiceUnavailable)
		return
	}
	stop := context.AfterFunc(r.Context(), c.leave)
	defer stop()
	out := http.NewResponseController(w)
	var buf []byte
	for more := true; more; {
		var lost uint64
		buf, lost, more = c.read(buf[:0], q.Follow)
		if lost > 0 {
			if _, err := w.Write(appendLost(nil, lost, q.Format)); err != nil {
				return
			}
		}
		if _, err := w.Write(buf); err != nil || out.Flush() != nil {
			return
		}
		if more && q.Follow && c.atEnd() {
			select {
			case <-time.After(gather):
			case <-r.Context().Done():
			}
		}
	}
}

// cursor reads what a request asks for.
func (s *server) cursor(r *http.Request) (Query, *cursor, error) {
	v := r.URL.Query()
	q := Query{Follow: v.Has("follow"), Format: records.Format(v.Get("format")), Filter: *filterOf(v)}
	c := &cursor{ring: s.ring}
	switch q.Format {
	case records.Compact:
		c.append = (*flow.Record).AppendCompact
	case records.JSON:
		c.append = (*flow.Record).AppendJSON
	default:
		return q, nil, fmt.Errorf("unknown format %q: compact or json", string(q.Format))
	}
	var err error
	if q.Last, err = strconv.Atoi(v.Get("last")); err != nil || q.Last < 0 {
		return q, nil, errors.New("last: not a number of records")
	}
	if c.filter, err = q.Filter.compile(); err != nil {
		return q, nil, err
	}
	c.last(q.Last)
	return q, c, nil
}

// appendLost adds the line that owns up to what was lost.
func appendLost(b []byte, lost uint64, format records.Format) []byte {
	if format == records.JSON {
		return fmt.Appendf(b, `{"lost":%d,"reason":"this observer was too slow"}`+"\n", lost)
	}
	return fmt.Appendf(b, "%d records lost: this observer was too slow\n", lost)
}
