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
type listenSocket struct {
	local  netip.AddrPort
	cookie uint64
	cgroup uint64
	inode  uint32
	v6only bool
}

// listNow lists the listening sockets of the namespace, the proxy's own apart.
func (p *place) listNow() ([]listenSocket, error) {
	var list []listenSocket
	err := p.ns.do(func() (err error) {
		list, err = listSockets()
		return err
	})
	return p.others(list), err
}

// others are the sockets of a list but for the proxy's.
func (p *place) others(list []listenSocket) []listenSocket {
	own := uint16(p.ln.Addr().(*net.TCPAddr).Port)
	return slices.DeleteFunc(slices.Clone(list), func(s listenSocket) bool { return s.local.Port() == own })
}

// listSockets asks sock_diag for the listening TCP sockets of the calling thread's
// namespace.
func listSockets() ([]listenSocket, error) {
	var list []listenSocket
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		socks, err := diag(family)
		if err != nil {
			return nil, fmt.Errorf("list listening sockets: %w", err)
		}
		list = append(list, socks...)
	}
	return list, nil
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
}

func (r diagRequest) Len() int { return 56 }
func (r diagRequest) Serialize() []byte {
	b := make([]byte, r.Len())
	b[0], b[1] = r.family, r.proto
	binary.NativeEndian.PutUint32(b[4:], r.states)
	return b
}

func diag(family uint8) ([]listenSocket, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(diagRequest{family: family, proto: unix.IPPROTO_TCP, states: 1 << tcpListen})
	msgs, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	if err != nil {
		return nil, err
	}
	var list []listenSocket
	for _, m := range msgs {
		if len(m) < diagMsgSize {
			continue
		}
		s := listenSocket{cookie: uint64(binary.NativeEndian.Uint32(m[44:])) | uint64(binary.NativeEndian.Uint32(m[48:]))<<32}
		var a netip.Addr
		if m[0] == unix.AF_INET {
			a = netip.AddrFrom4([4]byte(m[8:12]))
		} else {
			a = netip.AddrFrom16([16]byte(m[8:24]))
		}
		s.local = netip.AddrPortFrom(a, binary.BigEndian.Uint16(m[4:]))
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
