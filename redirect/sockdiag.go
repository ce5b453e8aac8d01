//go:build linux

package redirect

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A socket as sock_diag(7) tells of it.
type tcpSocket struct {
	local  netip.AddrPort
	remote netip.AddrPort
	cookie uint64
	cgroup uint64
	inode  uint32
	v6only bool
	family uint8
	id     [48]byte // struct inet_diag_sockid
}

// listNow lists the listening sockets of the namespace, the proxy's own apart.
func (p *place) listNow() ([]tcpSocket, error) {
	var list []tcpSocket
	err := p.ns.do(func() (err error) {
		list, err = listSockets()
		return err
	})
	return p.others(list), err
}

// others are the sockets of a list but for the proxy's.
func (p *place) others(list []tcpSocket) []tcpSocket {
	own := uint16(p.ln.Addr().(*net.TCPAddr).Port)
	return slices.DeleteFunc(slices.Clone(list), func(s tcpSocket) bool { return s.local.Port() == own })
}

// listSockets asks sock_diag for the listening TCP sockets of the calling thread's
// namespace.
func listSockets() ([]tcpSocket, error) {
	return listTCP(1 << tcpListen)
}

// listTCP asks sock_diag for the TCP sockets of the calling thread's namespace that are
// in one of states, a set of bits.
func listTCP(states uint32) ([]tcpSocket, error) {
	var list []tcpSocket
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		socks, err := diag(family, states)
		if err != nil {
			return nil, fmt.Errorf("list TCP sockets: %w", err)
		}
		list = append(list, socks...)
	}
	return list, nil
}

// destroy ends a TCP socket of the calling thread's namespace: its owner gets
// ECONNABORTED (sock_diag(7), Linux 4.5).
func destroy(s tcpSocket) error {
	const sockDestroy = 21 // SOCK_DESTROY
	req := nl.NewNetlinkRequest(sockDestroy, unix.NLM_F_ACK)
	req.AddData(diagRequest{family: s.family, proto: unix.IPPROTO_TCP, states: ^uint32(0), id: s.id})
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}

// orphan reports whether nobody has a socket any more: the kernel ends its connection.
func (s tcpSocket) orphan() bool { return s.inode == 0 }

// now is what has become of a socket; ENOENT if it is gone.
func (s tcpSocket) now() (tcpSocket, error) {
	list, err := ask(diagRequest{family: s.family, proto: unix.IPPROTO_TCP, states: ^uint32(0), id: s.id}, 0)
	if err == nil && len(list) != 1 {
		err = unix.ENOENT
	}
	if err != nil {
		return tcpSocket{}, err
	}
	return list[0], nil
}

// Attributes and layout of inet_diag (linux/inet_diag.h).
const (
	diagSkV6Only = 11
	diagCgroupID = 21
	diagMsgSize  = 72 // struct inet_diag_msg
	tcpListen    = 10
)

// diagRequest is struct inet_diag_req_v2.
type diagRequest struct {
	family, proto uint8
	states        uint32
	id            [48]byte
}

func (r diagRequest) Len() int { return 56 }
func (r diagRequest) Serialize() []byte {
	b := make([]byte, r.Len())
	b[0], b[1] = r.family, r.proto
	binary.NativeEndian.PutUint32(b[4:], r.states)
	copy(b[8:], r.id[:])
	return b
}

func diag(family uint8, states uint32) ([]tcpSocket, error) {
	return ask(diagRequest{family: family, proto: unix.IPPROTO_TCP, states: states}, unix.NLM_F_DUMP)
}

func ask(what diagRequest, flags int) ([]tcpSocket, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, flags)
	req.AddData(what)
	msgs, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	if err != nil {
		return nil, err
	}
	var list []tcpSocket
	for _, m := range msgs {
		if len(m) < diagMsgSize {
			continue
		}
		s := tcpSocket{family: m[0], id: [48]byte(m[4:52]), cookie: uint64(binary.NativeEndian.Uint32(m[44:])) | uint64(binary.NativeEndian.Uint32(m[48:]))<<32}
		addr := func(b []byte) netip.Addr {
			if m[0] == unix.AF_INET {
				return netip.AddrFrom4([4]byte(b))
			}
			return netip.AddrFrom16([16]byte(b))
		}
		s.local = netip.AddrPortFrom(addr(m[8:]), binary.BigEndian.Uint16(m[4:]))
		s.remote = netip.AddrPortFrom(addr(m[24:]), binary.BigEndian.Uint16(m[6:]))
		s.inode = binary.NativeEndian.Uint32(m[68:])
		attrs, err := nl.ParseRouteAttr(m[diagMsgSize:])
		if err != nil {
			return nil, err
		}
		for _, at := range attrs {
			switch {
			case at.Attr.Type == diagSkV6Only && len(at.Value) >= 1:
				s.v6only = at.Value[0] != 0
			case at.Attr.Type == diagCgroupID && len(at.Value) >= 8:
				s.cgroup = binary.NativeEndian.Uint64(at.Value)
			}
		}
		list = append(list, s)
	}
	return list, nil
}
