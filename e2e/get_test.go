//go:build linux

package e2e

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// getMain is the client of the scripts: one request, its status on stdout, as
// `curl -s -o /dev/null -w '%{http_code}'` does it. A bare machine has no curl,
// and curl has no way to ask for an IPv4 address on an IPv6 socket.
//
//	get [-X METHOD] [-d BODY] [-mapped] [-body] URL
//
// Exit status 7, as curl's, is a refused connection, 1 anything else that failed.
func getMain() {
	method := flag.String("X", "GET", "method")
	body := flag.String("d", "", "body")
	mapped := flag.Bool("mapped", false, "use an IPv6 socket for an IPv4 address")
	show := flag.Bool("body", false, "print the answer's body as well")
	flag.Parse()
	err := get(*method, flag.Arg(0), *body, *mapped, *show)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		fmt.Fprintln(os.Stderr, "get:", err)
		os.Exit(getRefused)
	case err != nil:
		fmt.Fprintln(os.Stderr, "get:", err)
		os.Exit(1)
	}
}

const (
	getTimeout = 20 * time.Second
	getRefused = 7
)

func get(method, target, body string, mapped, show bool) error {
	req, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		return err
	}
	conn, err := dialURL(req.URL, mapped)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(getTimeout))
	req.Close = true
	if err := req.Write(conn); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode)
	out := io.Discard
	if show {
		out = os.Stdout
	}
	_, err = io.Copy(out, resp.Body)
	return err
}

func dialURL(u *url.URL, mapped bool) (net.Conn, error) {
	if !mapped {
		return net.DialTimeout("tcp", u.Host, getTimeout)
	}
	to, err := netip.ParseAddrPort(u.Host)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "mapped")
	defer f.Close()
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(f)
}

// stepsMain is a client that goes on when it is told to: for each line on stdin
// it makes one connection and one request to the URL of its argument and prints
// the outcome: a status, "refused", or "failed: ...". It ends with its stdin.
func stepsMain() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		err := get("GET", os.Args[1], "", false, false)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			fmt.Println("refused")
		case err != nil:
			fmt.Println("failed:", err)
		}
	}
}
