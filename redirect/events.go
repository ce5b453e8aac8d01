//go:build linux

package redirect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/weir-proxy/weir/bpf"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// Event is a decision that the kernel took alone.
type Event struct {
	// Direction says whose policy decided: the sender's or the receiver's.
	Direction flow.Direction
	// Endpoint is the one that was judged, Peer the other end's identity.
	Endpoint uint32
	Peer     identity.ID
	Proto    uint8 // IPPROTO_*
	// Src is the sender's address, for flow.Ingress only.
	Src netip.AddrPort
	// Dst is where the workload meant to go; for ReasonSocket its port is the
	// socket's type and its address the family's unspecified one, if the
	// socket was refused before it had a destination.
	Dst     netip.AddrPort
	Allowed bool
	Audit   bool // denied by policy, and let through
	Reason  Reason
	PID     uint32 // of the sender, 0 and "" if it is not on this machine
	Comm    string
}

// Reason says why the kernel decided as it did.
type Reason uint8

// Reasons, as bpf/src/types.h numbers them.
const (
	ReasonPolicy        = Reason(bpf.WeirReasonREASON_POLICY)
	ReasonNoProxy       = Reason(bpf.WeirReasonREASON_NO_PROXY)
	ReasonNobodyListens = Reason(bpf.WeirReasonREASON_NOBODY_LISTENS)
	ReasonLinkLocal     = Reason(bpf.WeirReasonREASON_LINK_LOCAL)
	ReasonNoMemory      = Reason(bpf.WeirReasonREASON_NO_MEMORY)
	ReasonSocket        = Reason(bpf.WeirReasonREASON_SOCKET)
	ReasonUnknown       = Reason(bpf.WeirReasonREASON_UNKNOWN)
	ReasonNotTCP        = Reason(bpf.WeirReasonREASON_NOT_TCP)
)

// String is the reason as a record gives it; empty for ReasonPolicy, where the
// policy says it.
func (r Reason) String() string {
	switch r {
	case ReasonPolicy:
		return ""
	case ReasonNoProxy:
		return "the proxy does not listen in this network namespace"
	case ReasonNobodyListens:
		return "nobody listens there"
	case ReasonLinkLocal:
		return "request rules cannot be applied to a link-local destination"
	case ReasonNoMemory:
		return "a map of the kernel is full"
	case ReasonSocket:
		return "only TCP and UDP sockets can be judged"
	case ReasonUnknown:
		return "the endpoint is not known to the kernel"
	case ReasonNotTCP:
		return "request rules need TCP"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

type eventReader struct {
	rd *ringbuf.Reader
	wg sync.WaitGroup
}

func startEvents(m *ebpf.Map, on func(Event)) (*eventReader, error) {
	rd, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	r := &eventReader{rd: rd}
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		r.run(on)
	}()
	return r, nil
}

// run delivers events until the reader is closed, those that were already
// written included.
func (r *eventReader) run(on func(Event)) {
	var rec ringbuf.Record
	var e bpf.WeirEvent
	for {
		if err := r.rd.ReadInto(&rec); err != nil {
			if errors.Is(err, ringbuf.ErrFlushed) {
				return
			}
			if errors.Is(err, ringbuf.ErrClosed) {
				return
			}
			continue
		}
		if err := binary.Read(bytes.NewReader(rec.RawSample), binary.NativeEndian, &e); err != nil || on == nil {
			continue
		}
		ev := Event{
			Direction: flow.Direction(e.Direction),
			Endpoint:  e.Endpoint,
			Peer:      identity.ID(e.Peer),
			Proto:     e.Proto,
			Dst:       netip.AddrPortFrom(unwords(e.Dst.Ip), e.Dport),
			Allowed:   bpf.WeirAction(e.Action) == bpf.WeirActionACTION_ALLOW,
			Audit:     e.Audit != 0,
			Reason:    Reason(e.Reason),
			PID:       e.Pid,
			Comm:      comm(e.Comm),
		}
		if ev.Direction == flow.Ingress {
			ev.Src = netip.AddrPortFrom(unwords(e.Src.Ip), e.Sport)
		}
		on(ev)
	}
}

// close returns when every event written so far has been delivered.
func (r *eventReader) close() error {
	err := r.rd.Flush()
	r.wg.Wait()
	return errors.Join(err, r.rd.Close())
}
