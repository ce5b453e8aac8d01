//go:build linux

package redirect

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"
)

// keepAlive finds out within three minutes that the other end of a connection is gone
// without a word. Accepted sockets have it from their listener.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 10 * time.Second, Count: 6}

// A connection whose own address has left the namespace, a veth that was pulled for
// example, hears nothing any more, and would hold the namespace until then. Those of
// the proxy are ended at the second Resync that finds them so: an address that is only
// taken off to be put on again costs nothing.

// States of TCP sockets (net/tcp_states.h) that have a connection.
const tcpConnected = 1<<1 | 1<<2 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11 // ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING

// sync implements follower.
func (p *place) sync(now []netip.Prefix) error {
	if slices.ContainsFunc(p.before, func(was netip.Prefix) bool { return !slices.Contains(now, was) }) {
		p.shrunk.Store(true)
	}
	p.before = now
	return nil
}

// endLost ends what is lost. The caller holds d.mu.
func (p *place) endLost() error {
	if !p.shrunk.Swap(false) {
		return nil
	}
	var lost []tcpSocket
	err := p.ns.do(func() error {
		socks, err := listTCP(tcpConnected)
		if err != nil {
			return err
		}
		local, err := localPrefixes()
		if err != nil {
			return err
		}
		for _, s := range socks {
			addr := s.local.Addr().Unmap()
			if !slices.ContainsFunc(local, func(l netip.Prefix) bool { return l.Contains(addr) }) {
				lost = append(lost, s)
			}
		}
		return nil
	})
	if err != nil {
		p.shrunk.Store(true)
		return fmt.Errorf("look for lost connections: %w", err)
	}
	before := p.lost
	p.lost = nil
	if len(lost) == 0 {
		return nil
	}
	own, err := ownSockets()
	if err != nil {
		return err
	}
	type pair struct{ local, remote netip.AddrPort }
	ends := map[pair]bool{}
	for _, s := range lost {
		if own[s.inode] {
			ends[pair{unmap(s.local), unmap(s.remote)}] = true
		}
	}
	p.lost = map[uint64]bool{}
	var over []tcpSocket
	for _, s := range lost {
		// The application that the proxy was connected to would not hear of its end.
		switch {
		case !own[s.inode] && !ends[pair{unmap(s.remote), unmap(s.local)}]:
		case before[s.cookie]:
			over = append(over, s)
		default:
			p.lost[s.cookie] = true
			p.shrunk.Store(true) // look again
		}
	}
	if len(over) == 0 {
		return nil
	}
	p.d.cfg.Log.Info("end connections whose address is gone", "connections", len(over))
	return p.ns.do(func() error {
		for _, s := range over {
			if err := destroy(s); err != nil { // gone by itself, or the kernel cannot: keepalive is left
				p.d.cfg.Log.Debug("end connection", "error", err)
			}
		}
		return nil
	})
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// ownSockets are the inodes of this process's sockets.
func ownSockets() (map[uint32]bool, error) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, fmt.Errorf("list own sockets: %w", err)
	}
	own := map[uint32]bool{}
	for _, fd := range fds {
		if inode, ok := socketInode("/proc/self/fd/" + fd.Name()); ok {
			own[inode] = true
		}
	}
	return own, nil
}
