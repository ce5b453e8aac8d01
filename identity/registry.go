package identity

import (
	"fmt"
	"slices"
	"sync"
)

// Registry numbers label sets: each set of labels in use has one identity, and
// workloads with the same labels share it. A number that went out of use is not
// given out again while others are left.
type Registry struct {
	mu   sync.Mutex
	byID map[ID]*registered
	byLS map[string]*registered
	next ID
}

type registered struct {
	id     ID
	labels Labels
	refs   int
}

// Acquire returns the identity of a label set. Each call is undone by one Release.
func (r *Registry) Acquire(ls Labels) (ID, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.byLS[ls.String()]; e != nil {
		e.refs++
		return e.id, nil
	}
	if r.byID == nil {
		r.byID, r.byLS, r.next = map[ID]*registered{}, map[string]*registered{}, FirstEndpoint
	}
	for range FirstLocal - FirstEndpoint {
		id := r.next
		if r.next++; r.next == FirstLocal {
			r.next = FirstEndpoint
		}
		if r.byID[id] != nil {
			continue
		}
		e := &registered{id: id, labels: ls, refs: 1}
		r.byID[id], r.byLS[ls.String()] = e, e
		return id, nil
	}
	return Unknown, fmt.Errorf("number labels %s: all %d identities are in use", ls, FirstLocal-FirstEndpoint)
}

// Release gives back what Acquire returned.
func (r *Registry) Release(id ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.byID[id]
	if e == nil {
		return
	}
	if e.refs--; e.refs == 0 {
		delete(r.byID, id)
		delete(r.byLS, e.labels.String())
	}
}

// All returns the identities in use, in order of their numbers, and their labels.
func (r *Registry) All() ([]ID, map[ID]Labels) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := make([]ID, 0, len(r.byID))
	labels := make(map[ID]Labels, len(r.byID))
	for id, e := range r.byID {
		ids = append(ids, id)
		labels[id] = e.labels
	}
	slices.Sort(ids)
	return ids, labels
}
