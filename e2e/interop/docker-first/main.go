// Command docker-first is a container's command whose first act is to connect: to the
// address of its argument. It prints when it did, in nanoseconds since 1970, and "open"
// or what stood in the way.
package main

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"
)

func main() {
	began := time.Now().UnixNano()
	to := netip.MustParseAddrPort(os.Args[1])
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	}
	if err != nil {
		fmt.Println(began, err)
		return
	}
	fmt.Println(began, "open")
}
