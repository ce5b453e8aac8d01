//go:build linux

package discover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// result is an answer of the engine about one container.
type result struct {
	id     string
	record *record // without pid, and what follows from it
	pid    int
	err    error
	listed bool // from the list, which says less
}

// inspect asks what a container is.
func (s *session) inspect(id string) result {
	c, err := s.engine.inspect(s.ctx, id)
	if err != nil {
		return result{id: id, err: err}
	}
	r := &record{id: id, mode: c.HostConfig.NetworkMode, holds: c.HostConfig.heldBy(), running: c.State.Running}
	if err := s.name(r, c.Name, c.Config.Image, c.Image, c.Config.Labels); err != nil {
		return result{id: id, err: err}
	}
	pid := 0
	if c.State.Running && c.State.Pid > 0 {
		pid = c.State.Pid
	}
	return result{id: id, record: r, pid: pid}
}

// listed asks for what the engine says at any time. Capabilities are not among it: they
// are taken to be Docker's own until it says more.
func (s *session) listed(id string) result {
	r := result{id: id, listed: true}
	list, err := s.engine.list(s.ctx, id)
	if err == nil && (len(list) != 1 || list[0].ID != id) {
		err = errGone
	}
	if err != nil {
		r.err = err
		return r
	}
	l := &list[0]
	r.record = &record{id: id, mode: l.HostConfig.NetworkMode, holds: hostConfig{}.heldBy()}
	r.err = s.name(r.record, l.name(), l.Image, l.ImageID, l.Labels)
	return r
}

// name gives a record its name and labels.
func (s *session) name(r *record, name, image, imageID string, docker map[string]string) error {
	r.name = strings.TrimPrefix(name, "/")
	if r.name == "" {
		return fmt.Errorf("container %.12s has no name", r.id)
	}
	r.chosen = true
	for key, want := range s.cfg.Labels {
		if got, ok := docker[key]; !ok || got != want {
			r.chosen = false
		}
	}
	var ofImage map[string]string
	var err error
	if len(docker) > 0 {
		ofImage, err = s.images.labels(s.ctx, s.engine, imageID)
		if errors.Is(err, errGone) { // while the container does not run
			ofImage = docker // any may be the image's
		} else if err != nil {
			return err
		}
	}
	if r.labels, err = makeLabels(r.name, image, docker, ofImage); err != nil {
		return fmt.Errorf("labels of container %s: %w", r.name, err)
	}
	return nil
}

// images remembers what labels an image has: its id is the hash of its contents.
type images struct {
	mu   sync.Mutex
	byID map[string]map[string]string
}

func (i *images) labels(ctx context.Context, e *engine, id string) (map[string]string, error) {
	if !isImageID(id) {
		return nil, fmt.Errorf("inspect image: %.80q is no image id", id)
	}
	i.mu.Lock()
	labels, ok := i.byID[id]
	i.mu.Unlock()
	if ok {
		return labels, nil
	}
	labels, err := e.imageLabels(ctx, id)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.byID == nil {
		i.byID = map[string]map[string]string{}
	}
	i.byID[id] = labels
	return labels, nil
}

// keep forgets the others.
func (i *images) keep(ids map[string]bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for id := range i.byID {
		if !ids[id] {
			delete(i.byID, id)
		}
	}
}
