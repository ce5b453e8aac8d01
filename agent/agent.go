//go:build linux

// Package agent puts Weir together: it resolves policies for workloads, tells the
// kernel what it can decide alone, judges the rest in the proxy, and looks after
// workloads as they come and go. `weir agent` and `weir run` are both made of it.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/proxy"
	"github.com/weir-proxy/weir/proxy/httpproxy"
	"github.com/weir-proxy/weir/redirect"
)

// Config says where an agent lives and what it does.
type Config struct {
	// Name, BPFFS, Cgroup and ProxyCgroup are redirect.Config's.
	Name        string
	BPFFS       string
	Cgroup      *os.File
	ProxyCgroup *os.File
	// CgroupRoot is a path that Workload.Cgroup is below.
	CgroupRoot string
	// CutWithProxy cuts the workloads off when this process is gone; for an agent of
	// one workload. Otherwise what arrives at workloads is judged as well.
	CutWithProxy bool
	// Audit lets through, and records, what policies deny.
	Audit bool
	// Sink receives one record per decision.
	Sink flow.Sink
	Log  *slog.Logger
}

// Agent holds workloads under policy.
type Agent struct {
	cfg    Config
	log    *slog.Logger
	kernel *redirect.Datapath
	ids    identity.Registry
	moved  chan struct{} // addresses of endpoints changed
	soon   chan struct{} // workloads came
	since  time.Time
	live   live

	recheckDirect chan struct{} // open connections are to be looked at

	mu        sync.Mutex
	changed   map[uint32]bool // endpoints whose open connections are
	resynced  time.Time
	policies  []*l7rules.Policy
	revision  int
	applied   time.Time
	addresses []Address
	declared  []identity.ID // of addresses, held in ids
	wanted    map[string]Workload
	inotify   int
	watched   map[string]bool // directories; nil while nobody watches
	active    map[string]*endpoint
	dying     []*endpoint // of workloads whose handle is gone while tasks may live
	refused   map[string]string
	blocked   map[string]redirect.EndpointConfig // workloads that could not be put under policy
	byID      map[uint32]*endpoint
	nextID    uint32
	prefixes  identity.Prefixes // that policies name
	resolved  *l7rules.Resolver // what is in force, or was to be
	known     *peers            // its peers
	denyAll   *l7rules.EndpointPolicy
}

// Address gives labels to addresses that are no workload of this machine. Only
// destinations are known by it: a sender can show any address.
type Address struct {
	Name   string
	Labels identity.Labels
	CIDRs  []netip.Prefix
}

// Start loads and attaches the kernel's half. Nothing is judged before the first
// workload is set.
func Start(cfg Config) (*Agent, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Agent{
		cfg:           cfg,
		log:           cfg.Log,
		moved:         make(chan struct{}, 1),
		soon:          make(chan struct{}, 1),
		recheckDirect: make(chan struct{}, 1),
		since:         time.Now(),
		wanted:        map[string]Workload{},
		active:        map[string]*endpoint{},
		refused:       map[string]string{},
		blocked:       map[string]redirect.EndpointConfig{},
		byID:          map[uint32]*endpoint{},
		resolved:      &l7rules.Resolver{},
		denyAll:       l7rules.DenyAll(),
	}
	var err error
	a.kernel, err = redirect.Open(redirect.Config{
		Name:         cfg.Name,
		BPFFS:        cfg.BPFFS,
		Cgroup:       cfg.Cgroup,
		ProxyCgroup:  cfg.ProxyCgroup,
		CutWithProxy: cfg.CutWithProxy,
		Ingress:      !cfg.CutWithProxy,
		OnEvent:      a.onEvent,
		OnAddrs:      a.onAddrs,
		Log:          cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	// Before the first policy: the world is known.
	if err := a.kernel.SetPrefixes(worldPrefixes()); err != nil {
		return nil, errors.Join(err, a.kernel.Close())
	}
	return a, nil
}

// Serve runs the proxy and looks after workloads until ctx is done. An error means
// that the proxy failed: what it would have judged is refused then.
func (a *Agent) Serve(ctx context.Context) error {
	server := &proxy.Server{
		Handlers: map[l7rules.Protocol]proxy.Handler{l7rules.HTTP: httpproxy.Handle},
		Looks:    map[l7rules.Protocol]func([]byte) bool{l7rules.HTTP: httpproxy.Looks},
		Sink:     a.cfg.Sink,
		Log:      a.log,
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	if !a.cfg.CutWithProxy {
		wg.Go(func() { a.lookAfter(ctx) })
	}
	src := &source{a: a, done: make(chan struct{})}
	if err := server.Serve(ctx, src); err != nil {
		a.kernel.Refuse() // and the programs stay: what nobody judges does not pass
		cancel()
		return fmt.Errorf("serve redirected connections: %w", err)
	}
	return nil
}

// Close sets the workloads free and leaves nothing in the kernel.
func (a *Agent) Close() error {
	err := a.kernel.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.active {
		a.ids.Release(e.identity)
	}
	clear(a.active)
	return err
}

// source is the kernel as the proxy sees it.
type source struct {
	a    *Agent
	once sync.Once
	done chan struct{}
}

// Close implements proxy.Source. The agent's kernel half stays.
func (s *source) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// Accept implements proxy.Source.
func (s *source) Accept() (*proxy.Inbound, error) {
	r, err := s.a.kernel.Accept(s.done)
	if err != nil {
		return nil, err
	}
	return s.a.inbound(r), nil
}

// inbound says who a connection is from and to, and who judges it. What is unknown
// leaves zero values, which deny.
func (a *Agent) inbound(r *redirect.Redirected) *proxy.Inbound {
	in := &proxy.Inbound{
		Conn:      r.Conn,
		Original:  proxy.OriginalDst{AddrPort: r.Original},
		Direction: r.Direction,
		Dial:      r.Dial,
	}
	var client netip.AddrPort
	if from, ok := r.Conn.RemoteAddr().(*net.TCPAddr); ok {
		ap := from.AddrPort()
		client = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	a.mu.Lock()
	e := a.byID[r.Endpoint]
	in.Source, in.Destination = a.parties(r.Direction, e, r.Peer, client, r.Original)
	a.mu.Unlock()
	in.Source.PID, in.Source.Comm = r.PID, r.Comm
	if e == nil {
		return in
	}
	in.Gone = e.gone
	v := e.verdicts.Load()
	entry := v.lookup(r.Direction, r.Peer, protoTCP, r.Original.Port())
	if entry.Action == l7rules.ActionRedirect {
		in.Protocol = entry.Rules.Protocol()
		in.Lenient = v.audit || entry.Rules.NeverRefuses()
		in.Judge = e.judge(r.Direction, r.Peer, r.Original.Port())
		c := liveOf(r, e, v, in.Source, in.Destination)
		a.judgeReceiver(in, r, e, c)
		in.Track = func(reset func()) func() { return a.live.track(a, c, reset) }
		in.Hold = func(req flow.Request) { c.hold(a, req) }
	}
	return in
}

// judgeReceiver has a connection judged for its receiver as well, if that is a
// workload here whose rules want a look at requests or let nobody in: one connection
// through one proxy. What the kernel can allow alone is left to it.
func (a *Agent) judgeReceiver(in *proxy.Inbound, r *redirect.Redirected, sender *endpoint, c *liveConn) {
	id := r.Receiver()
	if id == 0 || id == sender.id {
		return
	}
	a.mu.Lock()
	e := a.byID[id]
	a.mu.Unlock()
	if e == nil {
		return
	}
	v := e.verdicts.Load()
	entry := v.lookup(flow.Ingress, sender.identity, protoTCP, r.Original.Port())
	if !v.policy.HasRules(flow.Ingress) || entry.Action == l7rules.ActionAllow {
		return
	}
	in.Lenient = in.Lenient && (v.audit || entry.Action == l7rules.ActionRedirect && entry.Rules.NeverRefuses())
	r.JudgesFor(id)
	in.JudgeReceiver = e.judge(flow.Ingress, sender.identity, r.Original.Port())
	c.sides = append(c.sides, side{e: e, seen: v, dir: flow.Ingress, peer: sender.identity, port: r.Original.Port()})
}

// parties names both ends. The caller holds a.mu.
func (a *Agent) parties(dir flow.Direction, e *endpoint, peer identity.ID, src, dst netip.AddrPort) (flow.Party, flow.Party) {
	self, other := flow.Party{}, flow.Party{Name: a.nameOf(peer), Identity: uint32(peer)}
	if e != nil {
		self = flow.Party{Name: e.w.Name, Identity: uint32(e.identity)}
	}
	if dir == flow.Ingress {
		self, other = other, self
	}
	self.Addr, other.Addr = src, dst
	return self, other
}

// nameOf is what a record calls an identity: the workload, if there is one of it.
// The caller holds a.mu.
func (a *Agent) nameOf(id identity.ID) string {
	switch {
	case id.IsWorld():
		return identity.World.String()
	case !id.IsEndpoint():
		return id.String()
	}
	name := ""
	for _, e := range a.active {
		if e.identity != id {
			continue
		}
		if name != "" {
			return e.w.Labels.String()
		}
		name = e.w.Name
	}
	if name == "" {
		for i, d := range a.declared {
			if d == id {
				return a.addresses[i].Name
			}
		}
	}
	return name
}
