//go:build linux

package discover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
)

// DefaultSocket is where Docker listens unless told otherwise.
const DefaultSocket = "/var/run/docker.sock"

// Config says which containers become workloads.
type Config struct {
	// Socket is the engine's unix socket; "" is DefaultSocket.
	Socket string
	// CgroupRoot is agent.Config's: the root of cgroup v2.
	CgroupRoot string
	// Labels are Docker labels, as docker inspect shows them, that a container must have
	// to become a workload; empty: every one does.
	Labels map[string]string
	// Unconfined names containers, "default/NAME" or "NAME", that are judged by their
	// policies although they may hold CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_MODULE or
	// CAP_BPF; to others that do the agent denies everything. CAP_NET_RAW alone needs no
	// name, for Docker gives it to every container: see examples/docker-compose.
	Unconfined []string
	// Log receives what no caller can be told. nil discards it.
	Log *slog.Logger

	relist, backoff time.Duration // other than relistEvery and maxBackoff, for tests
}

// How often things are looked at that an event should have told of, and how long is
// waited after an error.
const (
	relistEvery = 30 * time.Second
	minBackoff  = 50 * time.Millisecond
	maxBackoff  = 5 * time.Second
	steady      = 10 * time.Second // a connection that lasted so long was a good one
)

// Watch follows the containers of a Docker engine until ctx is done, and returns nil
// then. It calls changed, one call at a time, with the complete set of containers
// whenever that is another one than before; first once every container that runs has
// been looked at. An error of changed is logged and the call repeated later with what
// is the set then.
//
// While the engine cannot be reached, the last set stays. An error is returned only for
// what trying again does not mend.
func Watch(ctx context.Context, cfg Config, changed func([]Container) error) error {
	host, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("watch docker: find the host's network namespace: %w", err)
	}
	if cfg.CgroupRoot == "" {
		return errors.New("watch docker: no root of cgroup v2 given")
	}
	return watch(ctx, cfg, &machine{proc: "/proc", cgroups: strings.TrimSuffix(cfg.CgroupRoot, "/"), netns: host}, changed)
}

func watch(ctx context.Context, cfg Config, m *machine, changed func([]Container) error) error {
	if cfg.Socket == "" {
		cfg.Socket = DefaultSocket
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.relist == 0 {
		cfg.relist = relistEvery
	}
	if cfg.backoff == 0 {
		cfg.backoff = maxBackoff
	}
	w := newWatcher(cfg, m, changed)
	backoff, last := minBackoff, ""
	for {
		began := time.Now()
		err := w.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > steady {
			backoff, last = minBackoff, ""
		}
		if err.Error() != last { // an engine that is down is mentioned once
			last = err.Error()
			cfg.Log.Warn("watch docker: trying again", "socket", cfg.Socket, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, cfg.backoff)
	}
}

// watcher holds what is known of the containers, from one connection to the next.
type watcher struct {
	cfg     Config
	machine *machine
	finder  *finder
	changed func([]Container) error
	images  images

	known    map[string]*record // by container id
	dirty    bool               // known is not what changed was told
	told     bool               // changed has been called
	last     []Container        // with this
	refused  map[string]string  // by container id, to mention each once
	repeat   time.Duration      // after an error of changed; 0 it was content
	repeatAt time.Time
}

func newWatcher(cfg Config, m *machine, changed func([]Container) error) *watcher {
	return &watcher{
		cfg: cfg, machine: m, finder: newFinder(m), changed: changed,
		known: map[string]*record{}, refused: map[string]string{},
	}
}

// session is one connection to the engine. It ends with an error, or with ctx.
func (w *watcher) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	s := w.newSession(ctx)
	defer func() {
		cancel()
		s.wg.Wait()
		s.engine.close()
	}()
	if err := s.engine.negotiate(ctx); err != nil {
		return err
	}
	// The engine answers before it subscribes: what happens in between is among the
	// events it remembers since this moment.
	since := time.Now()
	in := newInbox()
	s.wg.Go(func() { in.fail(s.engine.follow(ctx, since, in.open, in.put)) })
	if err := in.wait(ctx); err != nil {
		return err
	}
	if err := s.relist(); err != nil {
		return err
	}
	return s.loop(in)
}

// tell calls changed if there is something new.
func (w *watcher) tell() {
	again := w.repeat > 0 && time.Now().After(w.repeatAt)
	if w.told && !w.dirty && !again {
		return
	}
	w.dirty = false
	list := w.wanted()
	if w.told && !again && slices.EqualFunc(list, w.last, equal) {
		return
	}
	refused := map[string]string{}
	for _, c := range list {
		if c.Refused == "" {
			continue
		}
		refused[c.ID] = c.Refused
		if w.refused[c.ID] != c.Refused {
			w.cfg.Log.Warn("container is not put under policy", "workload", c.Workload.Name, "reason", c.Refused)
		}
	}
	w.refused = refused
	err := w.changed(slices.Clone(list))
	w.last, w.told = list, true
	if err == nil {
		w.repeat = 0
		return
	}
	w.repeat = min(max(2*w.repeat, minBackoff), w.cfg.backoff)
	w.repeatAt = time.Now().Add(w.repeat)
	w.cfg.Log.Error("put containers under policy", "error", err)
}
