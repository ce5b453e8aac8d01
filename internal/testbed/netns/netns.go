//go:build linux

// Package netns makes throw-away network namespaces, for tests and the demo. They are
// named by files that they are mounted on; "" is this process's own.
package netns

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Make makes a network namespace with its loopback up. It lives until Remove, or for as
// long as somebody is in it.
func Make(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	return Inside("", func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind network namespace to %s: %w", path, err)
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
}

// Remove takes the namespace off its file.
func Remove(path string) error { return unix.Unmount(path, unix.MNT_DETACH) }

// Inside runs f on a thread of its own in a namespace.
func Inside(path string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		done <- func() error {
			if path == "" {
				return f()
			}
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open network namespace %s: %w", path, err)
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace %s: %w", path, err)
			}
			return f()
		}()
	}()
	return <-done
}

// End is one end of a wire.
type End struct {
	Path   string // of the namespace
	Device string
	Addrs  []netip.Prefix // of the device. Without one of IPv6 it gets none by itself
	Routes []netip.Prefix // that lead there, besides those of Addrs
}

// Wire joins two namespaces by a veth. It goes with either of them.
func Wire(a, b End) error {
	// The other end by descriptor: netlink knows no paths.
	peer, err := os.Open(cmp.Or(b.Path, "/proc/thread-self/ns/net"))
	if err != nil {
		return fmt.Errorf("join network namespaces: %w", err)
	}
	defer peer.Close()
	err = Inside(a.Path, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a.Device}, PeerName: b.Device, PeerNamespace: netlink.NsFd(int(peer.Fd()))})
	})
	if err != nil {
		return fmt.Errorf("join network namespaces: %w", err)
	}
	return errors.Join(a.configure(), b.configure())
}

func (e End) configure() error {
	err := Inside(e.Path, func() error {
		l, err := netlink.LinkByName(e.Device)
		if err != nil {
			return err
		}
		v6 := false
		for _, p := range e.Addrs {
			a := &netlink.Addr{IPNet: ipNet(p)}
			if p.Addr().Is6() {
				v6 = true
				a.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(l, a); err != nil {
				return fmt.Errorf("add %v: %w", p, err)
			}
		}
		if !v6 {
			const none = 1 // IN6_ADDR_GEN_MODE_NONE
			if err := netlink.LinkSetIP6AddrGenMode(l, none); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
				return err
			}
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
		for _, p := range e.Routes {
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(p)}); err != nil {
				return fmt.Errorf("route to %v: %w", p, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("configure %s: %w", e.Device, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
