// Package gateway puts the same judge and the same handlers in front of one
// address, behind a plain listener: no kernel, no root, on any system. It is for
// trying a policy, for tests and for comparison.
package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/weir-proxy/weir/agent/explain"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/proxy"
	"github.com/weir-proxy/weir/proxy/httpproxy"
)

// Config is what `weir gateway` is told.
type Config struct {
	Policies []string       // files and directories
	Listen   string         // address to listen on
	To       netip.AddrPort // the destination of every connection
	From     []string       // labels of whoever connects, as --label of weir run
	Log      *slog.Logger
	// Notes gets what the user should know although it is no error.
	Notes func(string)
}

// Gateway is a listener in front of one address. It is a proxy.Source.
type Gateway struct {
	listener net.Listener
	policy   *l7rules.EndpointPolicy
	peer     l7rules.Peer
	from, to flow.Party
	original proxy.OriginalDst
	dialer   net.Dialer
	log      *slog.Logger
}

// opaque is the protocol of connections that the policy lets through without
// looking into them. In front of the kernel they would not come here at all.
const opaque l7rules.Protocol = "tcp"

// Open reads the policies and listens.
func Open(ctx context.Context, c Config) (*Gateway, error) {
	labels, err := identity.Workload("", c.From...)
	if err != nil {
		return nil, fmt.Errorf("read labels of --from: %w", err)
	}
	policy, err := load(c, labels)
	if err != nil {
		return nil, err
	}
	to := netip.AddrPortFrom(c.To.Addr().Unmap(), c.To.Port())
	peer, err := peerOf(to.Addr(), policy)
	if err != nil {
		return nil, err
	}
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	listener, err := lc.Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	g := &Gateway{
		listener: listener,
		policy:   policy,
		peer:     peer,
		from:     flow.Party{Name: name(labels)},
		to:       flow.Party{Name: peer.ID.String(), Identity: uint32(peer.ID), Addr: to},
		original: proxy.OriginalDst{AddrPort: to},
		log:      c.Log,
	}
	g.dialer.SetMultipathTCP(false)
	return g, nil
}

func load(c Config, labels identity.Labels) (*l7rules.EndpointPolicy, error) {
	policies, warnings, err := explain.Join(explain.Load(c.Policies))
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		c.Notes(w.String())
	}
	if err := l7rules.Unenforced(policies); err != nil {
		return nil, err
	}
	policy, err := l7rules.Compile(policies, labels)
	if err != nil {
		return nil, err
	}
	if !policy.Selected() {
		return nil, fmt.Errorf("no document of the policy selects --from, whose labels are %s: see endpointSelector", labels)
	}
	if !policy.Enforced(flow.Egress) {
		c.Notes("egress is open: no document that selects --from has egress rules")
	}
	return policy, nil
}

// peerOf finds whom a destination address belongs to: the host if it is local,
// else the longest prefix that a rule names, else the world.
func peerOf(addr netip.Addr, policy *l7rules.EndpointPolicy) (l7rules.Peer, error) {
	local, err := isLocal(addr)
	if err != nil {
		return l7rules.Peer{}, fmt.Errorf("find whether --to is this machine: %w", err)
	}
	if local {
		return l7rules.Peer{ID: identity.Host}, nil
	}
	peer := l7rules.Peer{ID: identity.World}
	for _, p := range policy.Prefixes(flow.Egress) {
		if p.Contains(addr) && (!peer.Prefix.IsValid() || p.Bits() > peer.Prefix.Bits()) {
			peer.Prefix = p
		}
	}
	return peer, nil
}

func isLocal(addr netip.Addr) (bool, error) {
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true, nil
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false, err
	}
	for _, a := range own {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == addr.WithZone("") {
				return true, nil
			}
		}
	}
	return false, nil
}

// name is how records call the clients: like `weir run` calls its command.
func name(labels identity.Labels) string {
	if app, ok := labels.Get(identity.SourceAny, "app"); ok && app != "" {
		return labels.Namespace() + "/" + app
	}
	return labels.Namespace() + "/gateway"
}

// Addr is the address it listens on.
func (g *Gateway) Addr() net.Addr { return g.listener.Addr() }

// Close implements proxy.Source.
func (g *Gateway) Close() error { return g.listener.Close() }

// Accept implements proxy.Source. The verdict on the connection as a whole is in
// the handler that Protocol names: refuse, pass, or judge each request.
func (g *Gateway) Accept() (*proxy.Inbound, error) {
	c, err := g.listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := c.(*net.TCPConn)
	entry := g.policy.Lookup(flow.Egress, g.peer, l7rules.ProtoTCP, g.original.Port())
	from := g.from
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		from.Addr = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	in := &proxy.Inbound{
		Conn:        conn,
		Original:    g.original,
		Direction:   flow.Egress,
		Source:      from,
		Destination: g.to,
		Protocol:    opaque,
		Dial:        g.dial,
	}
	switch entry.Action {
	case l7rules.ActionRedirect:
		in.Protocol = entry.Rules.Protocol()
		in.Judge = entry.Rules.Decide
		in.Lenient = entry.Rules.NeverRefuses()
	default:
		in.Judge = func(flow.Request) l7rules.Decision { return entry.Decision() }
	}
	return in, nil
}

func (g *Gateway) dial(ctx context.Context) (*net.TCPConn, error) {
	c, err := g.dialer.DialContext(ctx, "tcp", g.original.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// Serve carries connections until ctx is done.
func (g *Gateway) Serve(ctx context.Context, sink flow.Sink) error {
	s := &proxy.Server{
		Handlers: map[l7rules.Protocol]proxy.Handler{
			l7rules.HTTP: httpproxy.Handle,
			opaque:       proxy.Opaque,
		},
		Looks: map[l7rules.Protocol]func([]byte) bool{l7rules.HTTP: httpproxy.Looks},
		Sink:  sink,
		Log:   g.log,
	}
	return s.Serve(ctx, g)
}
