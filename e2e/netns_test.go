//go:build linux

package e2e

import (
	"fmt"
	"os"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
)

var netnsCount atomic.Int32

// netns NAME makes a network namespace as an operator would, with iproute2: a
// veth pair into this one and loopback up. It sets $NAME to the namespace's name,
// $NAME_HOST and $NAME_HOST6 to this side's addresses, which are outside of it.
func cmdNetns(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: netns NAME")
	}
	// Names and addresses differ between runs side by side: by process, then by count.
	n := int(netnsCount.Add(1))
	unique := (os.Getpid()*7 + n) % (1 << 14)
	ns := fmt.Sprintf("weir-e2e-%d-%d", os.Getpid(), n)
	here := fmt.Sprintf("we%dh%d", os.Getpid(), n)
	there := fmt.Sprintf("we%dn%d", os.Getpid(), n)
	net4 := fmt.Sprintf("198.18.%d.%d", unique>>6, unique<<2&0xff) // RFC 2544's range for tests
	host4, ns4 := nextAddr(net4, 1), nextAddr(net4, 2)
	host6, ns6 := fmt.Sprintf("fd57:e1::%x:1", unique), fmt.Sprintf("fd57:e1::%x:2", unique)

	ip := func(args ...string) { ts.Check(ts.Exec("ip", args...)) }
	ip("netns", "add", ns)
	ts.Defer(func() { ts.Exec("ip", "netns", "delete", ns) })
	ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", ns)
	ts.Defer(func() { ts.Exec("ip", "link", "delete", here) })
	ip("addr", "add", host4+"/30", "dev", here)
	ip("addr", "add", host6+"/112", "dev", here, "nodad")
	ip("link", "set", here, "up")
	ip("-n", ns, "addr", "add", ns4+"/30", "dev", there)
	ip("-n", ns, "addr", "add", ns6+"/112", "dev", there, "nodad")
	ip("-n", ns, "link", "set", there, "up")
	ip("-n", ns, "link", "set", "lo", "up")
	ts.Setenv(args[0], ns)
	ts.Setenv(args[0]+"_HOST", host4)
	ts.Setenv(args[0]+"_HOST6", host6)
}

func nextAddr(net4 string, n int) string {
	var a, b, c, d int
	fmt.Sscanf(net4, "%d.%d.%d.%d", &a, &b, &c, &d)
	return fmt.Sprintf("%d.%d.%d.%d", a, b, c, d+n)
}
