//go:build linux

// Package redirect owns the kernel half: it loads the BPF programs, attaches
// and pins them, tells them which workloads are endpoints and what those may
// do, and hands over the connections that need a look at their requests,
// together with where they were going and who sent them. It is the only
// importer of package bpf.
//
// Linux 6.1 is the oldest kernel supported.
package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/weir-proxy/weir/bpf"
	"github.com/weir-proxy/weir/identity"
)

// Config says where an instance lives.
type Config struct {
	// Name of the instance, unique on the machine: its links are pinned under
	// BPFFS/weir/Name.
	Name string
	// BPFFS is a directory on the host's BPF file system.
	BPFFS string
	// Cgroup is a directory of cgroup v2: sockets opened below it are judged.
	// The caller keeps it open until Open returns.
	Cgroup *os.File
	// ProxyCgroup is the cgroup v2 directory of the calling process. The proxy's
	// listening sockets live there, and their flows are copied by a program
	// attached there, unless Cgroup is that directory or holds it.
	ProxyCgroup *os.File
	// CutWithProxy cuts everything below Cgroup off the network when the calling
	// process is gone: no new connection is allowed, whatever the policy, and
	// nothing is sent on open ones. For an instance with one endpoint, in the network namespace of the
	// calling process.
	CutWithProxy bool
	// Ingress judges what arrives at endpoints as well, and has senders known to
	// receivers on this machine. Cgroup is the root then, or holds everybody who is
	// to be known.
	Ingress bool
	// OnEvent receives the decisions that the kernel took alone, one at a time.
	OnEvent func(Event)
	// OnAddrs is called when what Endpoint.Addrs returns has changed for some
	// endpoint. It must not block, nor call the Datapath.
	OnAddrs func()
	// Log receives what no caller can be told. nil discards it.
	Log *slog.Logger
}

// Datapath is one loaded, attached and pinned instance.
type Datapath struct {
	cfg        Config
	objs       bpf.WeirObjects
	pinDir     string
	nodeCookie uint64               // of the namespace this process is in
	steer      *ebpf.CollectionSpec // read once, loaded for each namespace
	links      []link.Link
	events     *eventReader
	conns      chan *Redirected
	done       chan struct{}
	close      func() error // once

	owners sync.Map // netip.Addr -> uint32: the endpoint that is the namespace with it, 0 several

	mu        sync.Mutex
	endpoints map[uint32]*Endpoint
	places    map[uint64]*place               // by namespace cookie
	prepared  map[uint64]*place               // by inode of the namespace
	peers     [2]map[netip.Prefix]identity.ID // by common scope
	node      *nodeAddrs
	inherited map[bpf.WeirLportKey]uint32 // what the kernel was told
	found     map[bpf.WeirLportKey]uint32 // what of that the last Resync found
	idle      map[bpf.WeirLportKey]bool   // entries of listening that nobody used at the last Resync
}

// Open loads the programs, attaches and pins them. Nothing is judged until the
// first endpoint is added. Where it fails, nothing stays attached or pinned.
func Open(cfg Config) (_ *Datapath, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Datapath{
		cfg:       cfg,
		pinDir:    filepath.Join(cfg.BPFFS, "weir", cfg.Name),
		conns:     make(chan *Redirected),
		done:      make(chan struct{}),
		endpoints: map[uint32]*Endpoint{},
		places:    map[uint64]*place{},
		prepared:  map[uint64]*place{},
		peers:     [2]map[netip.Prefix]identity.ID{{}, {}},
	}
	d.close = sync.OnceValue(d.detach)
	spec, err := bpf.LoadWeir()
	if err != nil {
		return nil, fmt.Errorf("read embedded programs: %w", err)
	}
	if d.steer, err = bpf.LoadSteer(); err != nil {
		return nil, fmt.Errorf("read embedded programs: %w", err)
	}
	cookie, err := netnsCookie()
	if err != nil {
		return nil, err
	}
	d.nodeCookie = cookie
	vars := map[string]any{bpf.WeirVarNodeNetns: cookie}
	if cfg.CutWithProxy {
		vars[bpf.WeirVarOnlyNetns] = cookie
	}
	if cfg.Ingress {
		vars[bpf.WeirVarIngress] = uint32(1)
	}
	for name, v := range vars {
		if err := spec.Variables[name].Set(v); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	if err := spec.LoadAndAssign(&d.objs, nil); err != nil {
		var ve *ebpf.VerifierError
		if errors.As(err, &ve) {
			cfg.Log.Debug("verifier", "log", fmt.Sprintf("%+v", ve))
		}
		return nil, fmt.Errorf("load programs (`weir doctor` says what is missing): %w", err)
	}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if err := os.MkdirAll(d.pinDir, 0o700); err != nil {
		return nil, fmt.Errorf("make pin directory: %w", err)
	}
	if err := d.attachAll(); err != nil {
		return nil, err
	}
	if d.events, err = startEvents(d.objs.Events, cfg.OnEvent); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Datapath) attachAll() error {
	own := []struct {
		name string
		at   ebpf.AttachType
		prog *ebpf.Program
	}{
		{"getpeername4", ebpf.AttachCgroupInet4GetPeername, d.objs.WeirGetpeername4},
		{"getpeername6", ebpf.AttachCgroupInet6GetPeername, d.objs.WeirGetpeername6},
		{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, d.objs.WeirSendmsg4},
		{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, d.objs.WeirSendmsg6},
		{"connect4", ebpf.AttachCGroupInet4Connect, d.objs.WeirConnect4},
		{"connect6", ebpf.AttachCGroupInet6Connect, d.objs.WeirConnect6},
		{"sock_create", ebpf.AttachCGroupInetSockCreate, d.objs.WeirSockCreate},
	}
	for _, a := range own {
		if err := d.attach(a.name, d.cfg.Cgroup, a.at, a.prog); err != nil {
			return err
		}
	}
	// Always: a listener of the workload's own may have connections too, which no
	// connect() was judged for.
	if err := d.attach("packet", d.cfg.Cgroup, ebpf.AttachCGroupInetEgress, d.objs.WeirPacket); err != nil {
		return err
	}
	if d.cfg.CutWithProxy {
		if err := d.attach("setsockopt", d.cfg.Cgroup, ebpf.AttachCGroupSetsockopt, d.objs.WeirSetsockopt); err != nil {
			return err
		}
	}
	if d.cfg.Ingress {
		if err := d.attach("guard", d.cfg.Cgroup, ebpf.AttachCGroupInetIngress, d.objs.WeirGuard); err != nil {
			return err
		}
	}
	return d.attachSockops()
}

// attachSockops attaches where both ends of a redirected connection are seen:
// the workload's sockets and the proxy's accepted ones.
func (d *Datapath) attachSockops() error {
	at, also := d.cfg.Cgroup, d.cfg.ProxyCgroup
	if also != nil {
		above, err := holds(also, at)
		if err != nil {
			return err
		}
		below, err := holds(at, also)
		if err != nil {
			return err
		}
		if above {
			at = also
		}
		if above || below {
			also = nil
		}
	}
	if err := d.attach("sockops", at, ebpf.AttachCGroupSockOps, d.objs.WeirSockops); err != nil {
		return err
	}
	if also == nil {
		return nil
	}
	return d.attach("sockops-proxy", also, ebpf.AttachCGroupSockOps, d.objs.WeirSockops)
}

// holds reports whether cgroup directory outer is inner or one of its ancestors.
func holds(outer, inner *os.File) (bool, error) {
	want, err := outer.Stat()
	if err != nil {
		return false, err
	}
	// Walk up by descriptor: the path may name something else in this mount namespace.
	dir := fmt.Sprintf("/proc/self/fd/%d", inner.Fd())
	for {
		st, err := os.Stat(dir)
		if err != nil {
			return false, fmt.Errorf("walk up from the proxy's cgroup: %w", err)
		}
		if os.SameFile(st, want) {
			return true, nil
		}
		if _, err := os.Stat(filepath.Join(dir, "cgroup.type")); errors.Is(err, fs.ErrNotExist) {
			return false, nil // the root has no cgroup.type
		}
		dir += "/.."
	}
}

// attach links a program to a cgroup and pins the link, so that it outlives this
// process: a dead agent must not open the door.
func (d *Datapath) attach(name string, cgroup *os.File, at ebpf.AttachType, p *ebpf.Program) error {
	l, err := link.AttachCgroup(link.CgroupOptions{
		Path:    fmt.Sprintf("/proc/self/fd/%d", cgroup.Fd()),
		Attach:  at,
		Program: p,
	})
	if err != nil {
		return fmt.Errorf("attach %s to cgroup: %w", name, err)
	}
	return d.keep(name, l)
}

func (d *Datapath) keep(name string, l link.Link) error {
	d.links = append(d.links, l)
	if err := l.Pin(filepath.Join(d.pinDir, name)); err != nil {
		return fmt.Errorf("pin link %s: %w", name, err)
	}
	return nil
}

// Counters are of what has gone wrong in the kernel since Open.
type Counters struct {
	EventsLost    uint64 // decisions whose event found the ring buffer full
	FlowsFull     uint64 // connections refused because there was no room for their flow
	ListeningFull uint64 // listening sockets that are not known, and refuse what is judged
}

// Counters reads the kernel's counters.
func (d *Datapath) Counters() (Counters, error) {
	var c Counters
	for i, v := range map[bpf.WeirCounter]*uint64{
		bpf.WeirCounterCOUNT_EVENTS_LOST:    &c.EventsLost,
		bpf.WeirCounterCOUNT_FLOWS_FULL:     &c.FlowsFull,
		bpf.WeirCounterCOUNT_LISTENING_FULL: &c.ListeningFull,
	} {
		var perCPU []uint64
		if err := d.objs.Counters.Lookup(uint32(i), &perCPU); err != nil {
			return Counters{}, fmt.Errorf("read counters: %w", err)
		}
		for _, n := range perCPU {
			*v += n
		}
	}
	return c, nil
}

// Refuse closes the proxy's listeners for good: whatever would have come to the
// proxy is refused by the kernel from now on. For a proxy that cannot go on.
func (d *Datapath) Refuse() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.places {
		p.stop()
		p.ln.Close()
	}
}

// Close detaches everything, removes the pins and closes the listeners. Callers
// have ended the workloads before, or mean to set them free.
func (d *Datapath) Close() error { return d.close() }

func (d *Datapath) detach() error {
	var errs []error
	close(d.done)
	d.Discard()
	d.mu.Lock()
	for _, e := range d.endpoints {
		errs = append(errs, e.close())
	}
	clear(d.endpoints)
	d.mu.Unlock()
	if d.node != nil {
		d.node.close()
	}
	for _, l := range d.links {
		errs = append(errs, l.Unpin(), l.Close())
	}
	if d.events != nil {
		errs = append(errs, d.events.close())
	}
	errs = append(errs, d.objs.Close())
	if err := os.Remove(d.pinDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	os.Remove(filepath.Dir(d.pinDir)) // fails while other instances live
	return errors.Join(errs...)
}
