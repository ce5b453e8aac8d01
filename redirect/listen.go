//go:build linux

package redirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/weir-proxy/weir/bpf"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/flow"
	"golang.org/x/sys/unix"
)

// Redirected is a connection that the kernel gave to the proxy. The flow was
// copied to the accepted socket before accept(): nothing in it can come from the
// client but by the connect() it made.
type Redirected struct {
	Conn *net.TCPConn
	// Direction says whose policy judges: the sender's or the receiver's.
	Direction flow.Direction
	// Endpoint is the one that is judged, Peer the other end's identity, both as the
	// kernel judged them.
	Endpoint uint32
	Peer     identity.ID
	// Original is where the client was going.
	Original netip.AddrPort
	// PID and Comm are the sender's, 0 and "" if it is not on this machine.
	PID  uint32
	Comm string

	place    *place
	self     identity.ID // of Endpoint
	receiver uint32      // whose side is judged by the proxy as well
	ifindex  uint32
}

// acceptRetry is how long accept waits when it cannot take a connection, out of
// descriptors for example.
const acceptRetry = 10 * time.Millisecond

func (p *place) accept() {
	defer p.wg.Done()
	for {
		c, err := p.ln.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			p.d.cfg.Log.Warn("accept redirected connection", "error", err)
			select {
			case <-time.After(acceptRetry):
				continue
			case <-p.ctx.Done():
				return
			}
		}
		r, err := p.identify(c)
		if err != nil {
			// Nobody we know sent it: not a byte of it is read.
			p.d.cfg.Log.Warn("refuse connection without a flow", "from", c.RemoteAddr(), "error", err)
			abort(c)
			continue
		}
		select {
		case p.d.conns <- r:
		case <-p.ctx.Done():
			abort(c)
			return
		}
	}
}

// abort closes a connection by RST.
func abort(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// identify reads the flow that the kernel copied into the accepted socket.
func (p *place) identify(c *net.TCPConn) (*Redirected, error) {
	var f bpf.WeirFlow
	if err := control(c, func(fd uintptr) error { return p.d.objs.Redirected.Lookup(uint32(fd), &f) }); err != nil {
		return nil, fmt.Errorf("read flow of accepted socket: %w", err)
	}
	r := &Redirected{
		Conn:     c,
		Endpoint: f.Endpoint,
		Peer:     identity.ID(f.Peer),
		Original: netip.AddrPortFrom(unwords(f.Dst.Ip), f.Dport),
		PID:      f.Pid,
		Comm:     comm(f.Comm),
		place:    p,
		self:     identity.ID(f.Identity),
		ifindex:  f.Ifindex,
	}
	switch bpf.WeirKind(f.Kind) {
	case bpf.WeirKindKIND_REDIRECTED:
		r.Direction = flow.Egress
	case bpf.WeirKindKIND_INGRESS:
		r.Direction = flow.Ingress
	default:
		return nil, fmt.Errorf("its flow is of kind %d", f.Kind)
	}
	return r, nil
}

// Accept returns the next redirected connection of any endpoint. After Close, or
// when stop is closed, it returns net.ErrClosed.
func (d *Datapath) Accept(stop <-chan struct{}) (*Redirected, error) {
	select {
	case r := <-d.conns:
		return r, nil
	case <-d.done:
		return nil, net.ErrClosed
	case <-stop:
		return nil, net.ErrClosed
	}
}

// Dial connects to where the client was going, from the namespace of the endpoint
// that is judged. For a sender: from its address and interface, if it had bound
// one. For a receiver: from the address that the client had asked for, and the
// application is shown the client. The kernel does not judge the socket for the
// endpoint again.
func (r *Redirected) Dial(ctx context.Context) (*net.TCPConn, error) {
	d := net.Dialer{KeepAlive: -1, Control: r.prepare} // an application here closes when it dies
	if r.Direction == flow.Egress {
		d.KeepAliveConfig = keepAlive
	}
	d.SetMultipathTCP(false)
	from, ok := r.Conn.RemoteAddr().(*net.TCPAddr)
	switch {
	case r.Direction == flow.Ingress:
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(r.Original.Addr(), 0))
	case ok && !from.IP.IsLoopback():
		d.LocalAddr = &net.TCPAddr{IP: from.IP, Zone: from.Zone}
	}
	network := "tcp6"
	if r.Original.Addr().Is4() {
		network = "tcp4"
	}
	var c net.Conn
	err := r.place.ns.do(func() (err error) {
		c, err = d.DialContext(ctx, network, r.Original.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// Receiver finds the endpoint of this machine that a sender's connection goes to; 0
// none, or not to be told.
func (r *Redirected) Receiver() uint32 {
	if r.Direction != flow.Egress || !r.Peer.IsEndpoint() {
		return 0
	}
	d := r.place.d
	if id, ok := d.owners.Load(r.Original.Addr()); ok {
		return id.(uint32)
	}
	if id := d.listener(r.place.ns.cookie, r.Original); id != 0 {
		return id
	}
	return d.listener(d.nodeCookie, r.Original)
}

// JudgesFor says that the proxy judges the connection for the receiver too, so that
// the kernel lets it through there. It holds for that endpoint only, should the
// address lead to another one by then. Call it before Dial.
func (r *Redirected) JudgesFor(receiver uint32) { r.receiver = receiver }

func (r *Redirected) prepare(_, _ string, rc syscall.RawConn) error {
	up := bpf.WeirUpstream{Endpoint: r.Endpoint, Identity: uint32(r.self), Judged: r.receiver}
	if r.Direction == flow.Ingress {
		client := r.Conn.RemoteAddr().(*net.TCPAddr).AddrPort()
		up = bpf.WeirUpstream{Judged: r.Endpoint, Cport: client.Port()}
		up.Client.Ip = words(client.Addr())
	}
	var inner error
	err := rc.Control(func(fd uintptr) {
		if err := r.place.d.objs.ProxySockets.Put(uint32(fd), up); err != nil {
			inner = fmt.Errorf("mark the proxy's socket: %w", err)
			return
		}
		// The source port is chosen at connect(), by the whole tuple.
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if r.ifindex != 0 {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, int(r.ifindex)); err != nil {
				inner = fmt.Errorf("bind to the client's interface: %w", err)
			}
		}
	})
	return errors.Join(err, inner)
}
