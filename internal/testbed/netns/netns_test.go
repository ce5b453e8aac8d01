//go:build linux

package netns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/weir-proxy/weir/internal/testbed"
)

func TestWire(t *testing.T) {
	testbed.NeedKernel(t)
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, path := range []string{a, b} {
		if err := Make(path); err != nil {
			t.Fatal(err)
		}
		defer Remove(path)
	}
	prefix := netip.MustParsePrefix
	err := Wire(
		End{Path: a, Device: "va", Addrs: []netip.Prefix{prefix("10.1.0.1/32"), prefix("fd01::1/64")}, Routes: []netip.Prefix{prefix("10.1.0.2/32")}},
		End{Path: b, Device: "vb", Addrs: []netip.Prefix{prefix("10.1.0.2/32"), prefix("fd01::2/64")}, Routes: []netip.Prefix{prefix("10.1.0.1/32")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"10.1.0.2:80", "[fd01::2]:80"} {
		var ln net.Listener
		err := Inside(b, func() (err error) { ln, err = net.Listen("tcp", addr); return err })
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		err = Inside(a, func() error {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if err := Remove(a); err != nil {
		t.Error(err)
	}
	if err := Inside(a, func() error { return nil }); err == nil {
		t.Error("a namespace that was removed is there")
	}
	if err := Inside(filepath.Join(dir, "none"), func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Error("a namespace that never was is there")
	}
}
