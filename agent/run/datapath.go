//go:build linux

package run

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/proxy"
	"github.com/weir-proxy/weir/proxy/httpproxy"
	"github.com/weir-proxy/weir/redirect"
	"golang.org/x/sys/unix"
)

// A run has one endpoint; these are its numbers.
const (
	runEndpoint = 1
	runIdentity = identity.FirstEndpoint
)

// kernelDatapath is a run's policy in force: the kernel's half and the proxy.
type kernelDatapath struct {
	cfg    datapathConfig
	peers  map[identity.ID]l7rules.Peer
	kernel *redirect.Datapath
	stop   context.CancelFunc
	served chan struct{}
	errs   chan error
}

// startDatapath puts a policy in force: when it returns, whatever a process in
// the run's cgroup sends is judged.
func startDatapath(ctx context.Context, cfg datapathConfig) (_ datapath, err error) {
	dir, ok := cgroupID(cfg)
	if !ok {
		return nil, errors.New("read the number of the run's cgroup")
	}
	d := &kernelDatapath{cfg: cfg, served: make(chan struct{}), errs: make(chan error, 1)}
	d.kernel, err = redirect.Open(redirect.Config{
		Name:         cfg.ID,
		BPFFS:        cfg.BPFFS,
		Cgroup:       cfg.Cgroup,
		ProxyCgroup:  cfg.ProxyCgroup,
		CutWithProxy: true,
		OnEvent:      d.onEvent,
		Log:          cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	rows, prefixes := d.table()
	if err := d.kernel.SetPrefixes(prefixes); err != nil {
		return nil, errors.Join(err, d.kernel.Close())
	}
	if _, err := d.kernel.AddEndpoint(redirect.EndpointConfig{
		ID:       runEndpoint,
		Identity: runIdentity,
		Cgroup:   dir,
	}, redirect.Policy{
		Egress: redirect.Side{Enforced: cfg.Policy.Enforced(flow.Egress), Rows: rows},
		Audit:  cfg.Audit,
	}); err != nil {
		return nil, errors.Join(err, d.kernel.Close())
	}
	server := &proxy.Server{
		Handlers: map[l7rules.Protocol]proxy.Handler{l7rules.HTTP: httpproxy.Handle},
		Sink:     cfg.Sink,
		Log:      cfg.Log,
	}
	ctx, d.stop = context.WithCancel(context.WithoutCancel(ctx)) // the run ends it, not a signal
	go func() {
		defer close(d.served)
		if err := server.Serve(ctx, d); err != nil {
			// The listeners go with it: what still comes is refused.
			d.errs <- errors.Join(err, d.kernel.Close())
		}
		close(d.errs)
	}()
	return d, nil
}

func cgroupID(cfg datapathConfig) (uint64, bool) {
	fi, err := cfg.Cgroup.Stat()
	if err != nil {
		return 0, false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return st.Ino, ok
}

// table resolves the policy for every peer the kernel can tell apart: the host,
// the prefixes that the policy names, and the rest of the world.
func (d *kernelDatapath) table() ([]redirect.PolicyRow, []redirect.PeerPrefix) {
	d.peers = map[identity.ID]l7rules.Peer{identity.Host: {ID: identity.Host}}
	// Both defaults always: in the kernel's 16-byte form ::/0 would hold IPv4 too.
	prefixes := []redirect.PeerPrefix{
		{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Identity: identity.WorldIPv4},
		{Prefix: netip.MustParsePrefix("::/0"), Identity: identity.WorldIPv6},
	}
	for _, w := range prefixes {
		d.peers[w.Identity] = l7rules.Peer{ID: w.Identity}
	}
	for i, p := range d.cfg.Policy.Prefixes(flow.Egress) { // may name the defaults, and then replaces them
		id := identity.FirstLocal + identity.ID(i)
		d.peers[id] = l7rules.Peer{ID: id, Prefix: p}
		prefixes = append(prefixes, redirect.PeerPrefix{Prefix: p, Identity: id})
	}
	var rows []redirect.PolicyRow
	for id, peer := range d.peers {
		rows = append(rows, kernelRows(id, d.cfg.Policy.Table(flow.Egress, peer))...)
	}
	return rows, prefixes
}

// kernelRows is a peer's table as the kernel wants it: TCP and UDP, and only what
// is let through or looked at, since what is not there is denied.
func kernelRows(id identity.ID, table []l7rules.Entry) []redirect.PolicyRow {
	listed := map[uint8]bool{}
	for _, e := range table {
		listed[e.Proto] = true
	}
	var rows []redirect.PolicyRow
	for _, e := range table {
		if e.Action == l7rules.ActionDeny {
			continue
		}
		protos := []uint8{e.Proto}
		if e.Proto == 0 { // every one that the table does not list
			protos = slices.DeleteFunc([]uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP}, func(p uint8) bool { return listed[p] })
		}
		for _, p := range protos {
			if p == unix.IPPROTO_TCP || p == unix.IPPROTO_UDP {
				rows = append(rows, redirect.PolicyRow{Peer: id, Proto: p, First: e.First, Last: e.Last, Action: e.Action})
			}
		}
	}
	return rows
}

// lookup is the policy's word on a peer as the kernel named it.
func (d *kernelDatapath) lookup(peer identity.ID, proto uint8, port uint16) l7rules.Entry {
	p, ok := d.peers[peer]
	if !ok {
		return l7rules.Entry{Reason: fmt.Sprintf("identity %d is unknown", peer)}
	}
	return d.cfg.Policy.Lookup(flow.Egress, p, proto, port)
}

func (d *kernelDatapath) source(pid uint32, comm string) flow.Party {
	return flow.Party{Name: d.cfg.Name, Identity: uint32(runIdentity), PID: pid, Comm: comm}
}

func (d *kernelDatapath) destination(peer identity.ID, addr netip.AddrPort) flow.Party {
	name := "world"
	if peer == identity.Host {
		name = "host"
	}
	return flow.Party{Name: name, Identity: uint32(peer), Addr: addr}
}

// Accept implements proxy.Source.
func (d *kernelDatapath) Accept() (*proxy.Inbound, error) {
	r, err := d.kernel.Accept()
	if err != nil {
		return nil, err
	}
	e := d.lookup(r.Peer, unix.IPPROTO_TCP, r.Original.Port())
	in := &proxy.Inbound{
		Conn:        r.Conn,
		Original:    proxy.OriginalDst{AddrPort: r.Original},
		Direction:   flow.Egress,
		Source:      d.source(r.PID, r.Comm),
		Destination: d.destination(r.Peer, r.Original),
		Dial:        r.Dial,
	}
	if a, ok := r.Conn.RemoteAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		in.Source.Addr = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	if e.Action == l7rules.ActionRedirect { // else the zero values deny
		in.Protocol = e.Rules.Protocol()
		in.Judge = e.Rules.Decide
		if d.cfg.Audit {
			in.Judge = audited(e.Rules.Decide)
		}
	}
	return in, nil
}

// audited lets through what is denied, and says so.
func audited(decide func(flow.Request) l7rules.Decision) func(flow.Request) l7rules.Decision {
	return func(req flow.Request) l7rules.Decision {
		dec := decide(req)
		if dec.Verdict == flow.Dropped {
			dec.Verdict = flow.Audit
		}
		return dec
	}
}

// onEvent records what the kernel decided alone.
func (d *kernelDatapath) onEvent(e redirect.Event) {
	r := &flow.Record{
		Time:        time.Now(),
		Verdict:     flow.Dropped,
		Direction:   flow.Egress,
		Source:      d.source(e.PID, e.Comm),
		Destination: d.destination(e.Peer, e.Dst),
		Reason:      e.Reason.String(),
	}
	switch e.Proto {
	case unix.IPPROTO_TCP:
		r.Type = "tcp-connect"
	case unix.IPPROTO_UDP:
		r.Type = "udp-send"
	default:
		r.Type = "socket"
	}
	switch {
	case e.Reason == redirect.ReasonSocket:
		r.Type = "socket"
		r.Destination = flow.Party{}
		r.Reason = fmt.Sprintf("%s: type %d, protocol %d", e.Reason, e.Dst.Port(), e.Proto)
	case e.Reason == redirect.ReasonPolicy && d.cfg.Policy.Enforced(flow.Egress):
		entry := d.lookup(e.Peer, e.Proto, e.Dst.Port())
		r.Policy, r.Reason = entry.Policy, entry.Reason
	case e.Reason == redirect.ReasonPolicy:
		r.Reason = "egress is open"
	case e.Reason == redirect.ReasonNobodyListens:
		r.Verdict = flow.Error
	}
	switch {
	case e.Audit:
		r.Verdict = flow.Audit
	case e.Allowed:
		r.Verdict = flow.Forwarded
	}
	d.cfg.Sink(r)
}

// Err implements datapath.
func (d *kernelDatapath) Err() <-chan error { return d.errs }

// Close implements datapath and proxy.Source: for the source it is how Serve ends
// Accept, after the run has ended.
func (d *kernelDatapath) Close() error {
	d.stop()
	return d.kernel.Close()
}
