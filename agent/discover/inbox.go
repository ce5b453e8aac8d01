//go:build linux

package discover

import (
	"context"
	"sync"
)

// maxPending is how many containers wait in an inbox by name; with more, all are
// looked at.
const maxPending = 1024

// inbox takes events as fast as the engine sends them, for an engine drops those that
// its reader is too slow for. It keeps which containers something happened to: what
// that was is asked afterwards.
type inbox struct {
	signal chan struct{} // something is in it
	opened chan struct{}
	once   sync.Once

	mu   sync.Mutex
	news news
}

type news struct {
	touched  map[string]bool // by container id; true: it is being started
	overflow bool            // touched is not all
	err      error           // the stream has ended
}

func newInbox() *inbox {
	return &inbox{signal: make(chan struct{}, 1), opened: make(chan struct{})}
}

func (in *inbox) open() { in.once.Do(func() { close(in.opened) }) }

// wait waits for the engine's answer.
func (in *inbox) wait(ctx context.Context) error {
	select {
	case <-in.opened:
		return nil
	case <-in.signal:
		return in.take().err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (in *inbox) put(ev event) {
	id, starting := ev.Actor.ID, false
	switch {
	case ev.Type == "network" && ev.Action == "connect":
		// It comes when a container begins to start, unlike "start", which comes when
		// its command runs already.
		id, starting = ev.Actor.Attributes["container"], true
	case ev.Type != "container":
		return
	}
	if !isID(id) {
		return
	}
	in.update(func(n *news) {
		if n.touched == nil {
			n.touched = map[string]bool{}
		}
		if _, ok := n.touched[id]; !ok && len(n.touched) >= maxPending {
			n.overflow = true
			return
		}
		n.touched[id] = n.touched[id] || starting
	})
}

func (in *inbox) fail(err error) { in.update(func(n *news) { n.err = err }) }

func (in *inbox) update(f func(*news)) {
	in.mu.Lock()
	f(&in.news)
	in.mu.Unlock()
	select {
	case in.signal <- struct{}{}:
	default:
	}
}

// take empties the inbox.
func (in *inbox) take() news {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := in.news
	in.news = news{err: n.err}
	return n
}
