//go:build linux

package discover

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

const (
	// maxLooks is how many containers the engine is asked about at once. It answers
	// late for those that it is starting or stopping.
	maxLooks = 32
	// firstPatience is how long the first set waits for containers that the engine does
	// not answer for.
	firstPatience = time.Second
)

// A container that is being started is looked for this often, at first and later on.
const (
	startPoll     = 2 * time.Millisecond
	startPollLate = 20 * time.Millisecond
	startQuick    = 3 * time.Second
	startPatience = time.Minute
	startShare    = 4 // of the time, looking may take one part in so many and one
)

// session is one connection to the engine. All but the requests happens in one
// goroutine.
type session struct {
	*watcher
	ctx      context.Context
	engine   *engine
	wg       sync.WaitGroup
	looks    map[string]*look // by container id
	starting map[string]time.Time
	findAt   time.Time // not before
	results  chan result
	slots    chan struct{}
}

// look is a question to the engine that has not been answered.
type look struct {
	again bool // something happened since it was asked
	first bool // the first set waits for it
	delay time.Duration
}

func (w *watcher) newSession(ctx context.Context) *session {
	return &session{
		watcher: w, ctx: ctx, engine: newEngine(w.cfg.Socket),
		looks: map[string]*look{}, starting: map[string]time.Time{},
		results: make(chan result, maxLooks), slots: make(chan struct{}, maxLooks),
	}
}

func (s *session) loop(in *inbox) error {
	relist := time.NewTicker(s.cfg.relist)
	defer relist.Stop()
	poll := time.NewTimer(0)
	defer poll.Stop()
	first := time.Now().Add(firstPatience)
	for {
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-in.signal:
			n := in.take()
			if n.err != nil {
				return n.err
			}
			for id, starting := range n.touched {
				if starting {
					s.begin(id)
				}
				s.look(id, false)
			}
			if n.overflow {
				if err := s.relist(); err != nil {
					return err
				}
			}
		case r := <-s.results:
			s.take(r)
			for range len(s.results) {
				s.take(<-s.results)
			}
		case <-relist.C:
			if err := s.relist(); err != nil {
				return err
			}
		case <-poll.C:
		}
		s.find()
		if s.told || !s.waiting() || time.Now().After(first) {
			s.tell()
		}
		poll.Reset(s.pause())
	}
}

// pause is how long nothing needs to be done without being told.
func (s *session) pause() time.Duration {
	pause := relistEvery
	if !s.told {
		pause = firstPatience
	}
	if s.repeat > 0 {
		pause = s.repeat
	}
	for id, since := range s.starting {
		if r := s.known[id]; r != nil && r.pid == 0 && time.Since(since) < startQuick {
			return max(startPoll, time.Until(s.findAt))
		}
		pause = min(pause, startPollLate) // also those that were found, to see them fail
	}
	return pause
}

// waiting reports whether the first set is not complete.
func (s *session) waiting() bool {
	for _, l := range s.looks {
		if l.first {
			return true
		}
	}
	return false
}

// relist compares what the engine has with what is known, and asks where they differ.
func (s *session) relist() error {
	list, err := s.engine.list(s.ctx, "")
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(list))
	images := make(map[string]bool, len(list))
	for i := range list {
		l := &list[i]
		if !isID(l.ID) {
			continue
		}
		there[l.ID] = true
		images[l.ImageID] = true
		r := s.known[l.ID]
		running := l.State == "running" || l.State == "paused"
		// One that runs without a process that we know of may have been looked at while it
		// was between two.
		if r == nil || r.running != running || r.name != l.name() || (running || r.pid != 0) && !s.machine.alive(r) {
			s.look(l.ID, !s.told)
		}
	}
	for id := range s.known {
		if !there[id] {
			s.forget(id)
		}
	}
	s.images.keep(images)
	return nil
}

// name is the container's own: links give it more, "/web/db".
func (l *listed) name() string {
	for _, n := range l.Names {
		if n := strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			return n
		}
	}
	return ""
}

// look asks the engine about a container.
func (s *session) look(id string, first bool) {
	if l := s.looks[id]; l != nil {
		l.again = true
		return
	}
	s.looks[id] = &look{first: first}
	s.ask(0, func() result { return s.inspect(id) })
}

// ask sends what ask returns to the loop, after a while.
func (s *session) ask(after time.Duration, ask func() result) {
	s.wg.Go(func() {
		select {
		case <-time.After(after):
		case <-s.ctx.Done():
			return
		}
		select {
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		r := ask()
		<-s.slots
		select {
		case s.results <- r:
		case <-s.ctx.Done():
		}
	})
}

// take puts an answer into what is known.
func (s *session) take(r result) {
	if r.listed {
		if s.known[r.id] == nil && r.err == nil {
			s.known[r.id] = r.record
			s.dirty = true
		}
		return
	}
	l := s.looks[r.id]
	l.first = false
	switch {
	case errors.Is(r.err, errGone):
		s.forget(r.id)
	case r.err != nil:
		l.again, l.delay = true, min(max(2*l.delay, minBackoff), s.cfg.backoff)
		s.cfg.Log.Warn("look at container: trying again", "container", r.id[:12], "error", r.err)
	default:
		l.delay = 0
		s.learn(r.record, r.pid)
	}
	if !l.again {
		delete(s.looks, r.id)
		return
	}
	l.again = false
	s.ask(l.delay, func() result { return s.inspect(r.id) })
}

// learn replaces what is known of a container by what the engine says.
func (s *session) learn(r *record, pid int) {
	old := s.known[r.id]
	s.known[r.id] = r
	s.dirty = true
	if pid != 0 && s.machine.place(r, pid) {
		s.finder.seen(r.group)
		delete(s.starting, r.id)
		return
	}
	// The engine does not tell of the first process of one that is being started.
	if _, ok := s.starting[r.id]; ok && old != nil {
		r.pid, r.netns, r.group = old.pid, old.netns, old.group
	}
}

func (s *session) forget(id string) {
	delete(s.known, id)
	delete(s.starting, id)
	s.dirty = true
}

// begin looks for the first process of a container that is being started.
func (s *session) begin(id string) {
	if r := s.known[id]; r != nil && r.pid != 0 {
		if s.machine.alive(r) {
			return // connected to one more network
		}
		r.pid = 0
		s.dirty = true
	}
	s.starting[id] = time.Now()
	if s.known[id] == nil {
		s.ask(0, func() result { return s.listed(id) })
	}
}

// find looks for those that are being started.
func (s *session) find() {
	begin := time.Now()
	if len(s.starting) == 0 || begin.Before(s.findAt) {
		return
	}
	defer func() { s.findAt = time.Now().Add(startShare * time.Since(begin)) }()
	for id, since := range s.starting {
		r := s.known[id]
		switch {
		case time.Since(since) > startPatience:
			delete(s.starting, id)
		case r == nil: // what it is comes first
		case r.pid != 0:
			if !s.machine.alive(r) {
				r.pid = 0
				s.dirty = true
				delete(s.starting, id)
				s.look(id, false)
			}
		default:
			hostNet, ok := s.usesHost(r)
			if !ok {
				delete(s.starting, id) // it joins a namespace that is judged already
				continue
			}
			if pid := s.finder.first(id, hostNet); pid != 0 && s.machine.place(r, pid) {
				s.dirty = true
			}
		}
	}
}

// usesHost reports whether a container is to use the host's network; not ok, if it
// joins another one's.
func (s *session) usesHost(r *record) (host, ok bool) {
	if other := s.known[r.joined()]; other != nil {
		return true, other.mode == "host"
	}
	return r.mode == "host", r.joined() == ""
}
