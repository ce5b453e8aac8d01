//go:build linux

package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func sockaddr(family int, s string) unix.Sockaddr {
	p := netip.MustParseAddrPort(s)
	if family == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: p.Addr().Unmap().As4(), Port: int(p.Port())}
	}
	return &unix.SockaddrInet6{Addr: p.Addr().As16(), Port: int(p.Port())}
}

func text(s unix.Sockaddr) string {
	switch v := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(v.Addr), uint16(v.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(v.Addr), uint16(v.Port)).String()
	}
	return fmt.Sprint(s)
}

// kinds of sockets a script can open: family, type, protocol.
var kinds = map[string][3]int{
	"tcp4":     {unix.AF_INET, unix.SOCK_STREAM, 0},
	"tcp6":     {unix.AF_INET6, unix.SOCK_STREAM, 0},
	"mptcp4":   {unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
	"mptcp6":   {unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
	"udp4":     {unix.AF_INET, unix.SOCK_DGRAM, 0},
	"udp6":     {unix.AF_INET6, unix.SOCK_DGRAM, 0},
	"udplite4": {unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE},
	"ping4":    {unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP},
	"raw4":     {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW},
	"raw6":     {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW},
	"rawtcp4":  {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP},
	"sctp4":    {unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP},
}

// child is a small script of socket calls, one word per argument, on a stack of
// descriptors. It prints what each call that matters said.
func child(a []string) {
	runtime.LockOSThread()
	ns := namespace{path: a[0]}
	uid, _ := strconv.Atoi(a[1])
	a = a[2:]
	if err := ns.enter(func() error { return nil }); ns.path != "" && err != nil {
		fmt.Println("enter:", err)
		return
	}
	if uid != 0 {
		if err := unix.Setresuid(uid, uid, uid); err != nil {
			fmt.Println("setuid:", err)
			return
		}
	}
	var st []int
	fam := unix.AF_INET
	next := func() string { s := a[0]; a = a[1:]; return s }
	cur := func() int { return st[len(st)-1] }
	failed := false
	say := func(op string, err error) {
		if err != nil {
			failed = strings.Contains(op, "connect") || strings.Contains(op, "fastopen")
			var e unix.Errno
			if errors.As(err, &e) {
				fmt.Printf("%s:%s ", op, unix.ErrnoName(e))
			} else {
				fmt.Printf("%s:%v ", op, err)
			}
		}
	}
	timeout := func(fd int) {
		tv := unix.NsecToTimeval(int64(30 * time.Second)) // a slow machine is no failure
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	}
	for len(a) > 0 && !failed { // a socket that could not connect is of no more use
		op := next()
		if k, ok := kinds[op]; ok {
			fam = k[0]
			fd, err := unix.Socket(k[0], k[1], k[2])
			say(op, err)
			if err != nil {
				return
			}
			timeout(fd)
			st = append(st, fd)
			continue
		}
		switch op {
		case "inherit":
			st = append(st, 3)
			unix.SetNonblock(3, false)
			timeout(3)
		case "v6only":
			n, _ := strconv.Atoi(next())
			say(op, unix.SetsockoptInt(cur(), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, n))
		case "reuseport":
			say(op, unix.SetsockoptInt(cur(), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		case "reuseaddr":
			say(op, unix.SetsockoptInt(cur(), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		case "noport":
			say(op, unix.SetsockoptInt(cur(), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1))
		case "fastopen_connect":
			say(op, unix.SetsockoptInt(cur(), unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1))
		case "bind":
			say(op, unix.Bind(cur(), sockaddr(fam, next())))
		case "connect":
			say(op, unix.Connect(cur(), sockaddr(fam, next())))
		case "connect4": // an AF_INET address, whatever the socket's family
			say(op, unix.Connect(cur(), sockaddr(unix.AF_INET, next())))
		case "unconnect": // AF_UNSPEC
			raw := make([]byte, 16)
			_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(cur()), uintptr(unsafe.Pointer(&raw[0])), 16)
			if e != 0 {
				say(op, e)
			}
		case "nbconnect":
			unix.SetNonblock(cur(), true)
			err := unix.Connect(cur(), sockaddr(fam, next()))
			if err == unix.EINPROGRESS {
				unix.Poll([]unix.PollFd{{Fd: int32(cur()), Events: unix.POLLOUT}}, 3000)
				n, _ := unix.GetsockoptInt(cur(), unix.SOL_SOCKET, unix.SO_ERROR)
				err = nil
				if n != 0 {
					err = unix.Errno(n)
				}
			}
			unix.SetNonblock(cur(), false)
			say(op, err)
		case "uringconnect":
			say(op, uringConnect(cur(), sockaddr(fam, next())))
		case "fastopen": // connect by sendmsg
			say(op, unix.Sendto(cur(), []byte("hello"), unix.MSG_FASTOPEN, sockaddr(fam, next())))
		case "sendto":
			say(op, unix.Sendto(cur(), []byte("q"), 0, sockaddr(fam, next())))
		case "sendto4":
			say(op, unix.Sendto(cur(), []byte("q"), 0, sockaddr(unix.AF_INET, next())))
		case "listen":
			say(op, unix.Listen(cur(), 16))
		case "accept":
			fd, p, err := unix.Accept(cur())
			say(op, err)
			if err == nil {
				fmt.Print("client=", text(p), " ")
				st = append(st, fd)
			}
		case "unlimited": // wait for ever
			say(op, unix.SetsockoptTimeval(cur(), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{}))
		case "quick": // give up after a moment
			tv := unix.NsecToTimeval(int64(300 * time.Millisecond))
			say(op, unix.SetsockoptTimeval(cur(), unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv))
			say(op, unix.SetsockoptTimeval(cur(), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
		case "sourceroute": // IPv4 loose source route through an address (RFC 791)
			via := netip.MustParseAddr(next()).As4()
			say(op, unix.SetsockoptString(cur(), unix.IPPROTO_IP, unix.IP_OPTIONS, string(append([]byte{131, 7, 4}, append(via[:], 0)...))))
		case "longoption":
			say(op, unix.SetsockoptString(cur(), unix.SOL_SOCKET, unix.SO_RCVBUF, string(make([]byte, 1<<16))))
		case "dev":
			say(op, unix.BindToDevice(cur(), next()))
		case "peername":
			p, err := unix.Getpeername(cur())
			say(op, err)
			if err == nil {
				fmt.Print("peer=", text(p), " ")
			}
		case "sockname":
			p, err := unix.Getsockname(cur())
			say(op, err)
			fmt.Print(text(p), " ")
		case "recvfrom":
			b := make([]byte, 300)
			_, p, err := unix.Recvfrom(cur(), b, 0)
			say(op, err)
			if err == nil {
				fmt.Print("from=", text(p), " ")
			}
		case "echo":
			b := make([]byte, 300)
			n, p, err := unix.Recvfrom(cur(), b, 0)
			say(op, err)
			if err == nil {
				say(op, unix.Sendto(cur(), b[:n], 0, p))
			}
		case "send":
			_, err := unix.Write(cur(), []byte("hello"))
			say(op, err)
		case "recv":
			b := make([]byte, 300)
			n, err := unix.Read(cur(), b)
			say(op, err)
			fmt.Printf("got=%s ", b[:max(n, 0)])
		case "eof": // the other side closed first
			if n, err := unix.Read(cur(), make([]byte, 1)); n != 0 || err != nil {
				fmt.Printf("eof:%d,%v ", n, err)
			}
		case "abort": // RST instead of FIN
			unix.SetsockoptLinger(cur(), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		case "close":
			unix.Close(cur())
			st = st[:len(st)-1]
		case "unacked":
			n, err := unix.IoctlGetInt(cur(), unix.SIOCOUTQ)
			say(op, err)
			fmt.Print("unacked=", n, " ")
		case "say":
			fmt.Print(next(), " ")
		case "wait":
			os.Stdin.Read(make([]byte, 1))
		case "flicker":
			flicker(next())
		case "probe":
			probe(next())
		case "hammer":
			hammer(next())
		case "storm": // threads, count each, destinations separated by commas: connect, send, close
			storm(ns, next(), next(), strings.Split(next(), ","))
		default:
			fmt.Println("unknown op", op)
			return
		}
	}
}

// storm makes connections that are closed as soon as they were used.
func storm(ns namespace, threads, count string, dst []string) {
	n, _ := strconv.Atoi(threads)
	m, _ := strconv.Atoi(count)
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed := map[string]int{}
	for w := range n {
		wg.Go(func() {
			runtime.LockOSThread()
			if err := ns.enter(func() error { return nil }); err != nil { // this is another thread
				fmt.Print(err, " ")
				return
			}
			for i := range m {
				s := dst[(i+w)%len(dst)]
				fam := unix.AF_INET
				if s[0] == '[' {
					fam = unix.AF_INET6
				}
				fd, err := unix.Socket(fam, unix.SOCK_STREAM, 0)
				if err == nil {
					err = unix.Connect(fd, sockaddr(fam, s))
				}
				if err == nil {
					_, err = unix.Write(fd, []byte("x"))
				}
				unix.Close(fd)
				if err != nil {
					mu.Lock()
					failed[err.Error()]++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	fmt.Print("failed=", len(failed), " ")
	for e, k := range failed {
		fmt.Print(e, " x", k, " ")
	}
}

// uringConnect connects through io_uring, which has its own way into the kernel.
func uringConnect(fd int, to unix.Sockaddr) error {
	var params [120]byte // struct io_uring_params
	r, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if e != 0 {
		return e
	}
	ring := int(r)
	defer unix.Close(ring)
	u32 := func(off int) uint32 { return *(*uint32)(unsafe.Pointer(&params[off])) }
	// sq_off at 40: head, tail, ring_mask, ring_entries, flags, dropped, array. cq_off at 80: head, tail, mask, entries, overflow, cqes.
	sq, err := unix.Mmap(ring, 0, int(u32(40+24)+4), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	cq, err := unix.Mmap(ring, 0x8000000, int(u32(80+20)+32), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	sqes, err := unix.Mmap(ring, 0x10000000, 64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	var raw []byte
	switch v := to.(type) {
	case *unix.SockaddrInet4:
		raw = append([]byte{unix.AF_INET, 0, byte(v.Port >> 8), byte(v.Port)}, append(v.Addr[:], make([]byte, 8)...)...)
	case *unix.SockaddrInet6:
		raw = append([]byte{unix.AF_INET6, 0, byte(v.Port >> 8), byte(v.Port), 0, 0, 0, 0}, append(v.Addr[:], 0, 0, 0, 0)...)
	}
	sqes[0] = 16 // IORING_OP_CONNECT
	*(*int32)(unsafe.Pointer(&sqes[4])) = int32(fd)
	*(*uint64)(unsafe.Pointer(&sqes[8])) = uint64(len(raw))
	*(*uint64)(unsafe.Pointer(&sqes[16])) = uint64(uintptr(unsafe.Pointer(&raw[0])))
	*(*uint32)(unsafe.Pointer(&sq[u32(40+24)])) = 0 // array[0]
	*(*uint32)(unsafe.Pointer(&sq[u32(40+4)])) = 1  // tail
	_, _, e = unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(ring), 1, 1, 1 /* GETEVENTS */, 0, 0)
	runtime.KeepAlive(raw)
	if e != 0 {
		return e
	}
	if res := *(*int32)(unsafe.Pointer(&cq[u32(80+20)+8])); res != 0 {
		return unix.Errno(-res)
	}
	return nil
}
