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
	"golang.org/x/sys/unix"
)

// Redirected is a connection that the kernel gave to the proxy. The flow was
// written before the client's SYN and copied to the accepted socket: nothing in
// it can come from the client but by the connect() it made.
type Redirected struct {
	Conn *net.TCPConn
	// Endpoint and Peer are the sender and the destination's identity as the
	// kernel judged them.
	Endpoint uint32
	Peer     identity.ID
	// Original is where the client was going.
	Original netip.AddrPort
	PID      uint32
	Comm     string

	place   *place
	ifindex uint32
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
	var f bpf.EgressFlow
	if err := control(c, func(fd uintptr) error { return p.d.objs.Redirected.Lookup(uint32(fd), &f) }); err != nil {
		return nil, fmt.Errorf("read flow of accepted socket: %w", err)
	}
	return &Redirected{
		Conn:     c,
		Endpoint: f.Endpoint,
		Peer:     identity.ID(f.Peer),
		Original: netip.AddrPortFrom(unwords(f.Dst.Ip), f.Dport),
		PID:      f.Pid,
		Comm:     comm(f.Comm),
		place:    p,
		ifindex:  f.Ifindex,
	}, nil
}

// Accept returns the next redirected connection of any endpoint. After Close it
// returns net.ErrClosed.
func (d *Datapath) Accept() (*Redirected, error) {
	select {
	case r := <-d.conns:
		return r, nil
	case <-d.done:
		return nil, net.ErrClosed
	}
}

// Dial connects to where the client was going, from the client's namespace and,
// if the client had bound one, from its address and interface. The socket is
// exempt from redirection.
func (r *Redirected) Dial(ctx context.Context) (*net.TCPConn, error) {
	d := net.Dialer{KeepAlive: -1, Control: r.prepare}
	d.SetMultipathTCP(false)
	if from, ok := r.Conn.RemoteAddr().(*net.TCPAddr); ok && !from.IP.IsLoopback() {
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

func (r *Redirected) prepare(_, _ string, rc syscall.RawConn) error {
	var inner error
	err := rc.Control(func(fd uintptr) {
		if err := r.place.d.objs.ProxySockets.Put(uint32(fd), r.Endpoint); err != nil {
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
