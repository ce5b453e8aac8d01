//go:build linux

package redirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/weir-proxy/weir/l7rules"
	"golang.org/x/sys/unix"
)

// flicker is a server that begins to listen at one byte of its standard input and
// ends at the next, and says so. It greets whom it accepts, and says at the end how
// many those were.
func flicker(addr string) {
	var accepted atomic.Int64
	var wg sync.WaitGroup
	for {
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			break
		}
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		ln, err := lc.Listen(context.Background(), "tcp4", addr)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Print("open ")
		wg.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				accepted.Add(1)
				c.Write([]byte("hello"))
				c.Close()
			}
		})
		_, err = os.Stdin.Read(make([]byte, 1))
		ln.Close()
		wg.Wait()
		fmt.Print("closed ")
		if err != nil {
			break
		}
	}
	fmt.Print("accepted=", accepted.Load(), " ")
}

// attempt says what became of one connection to an IPv4 address.
func attempt(addr string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	tv := unix.Timeval{Sec: 30}
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	// Go interrupts its threads now and then.
	if err = unix.Connect(fd, sockaddr(unix.AF_INET, addr)); err == unix.EINTR {
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 30000)
		var n int
		if n, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); n != 0 {
			err = unix.Errno(n)
		}
	}
	if err == nil {
		buf, n := make([]byte, 10), 0
		for n, err = unix.Read(fd, buf); err == unix.EINTR; {
			n, err = unix.Read(fd, buf)
		}
		if n > 0 {
			return string(buf[:n])
		} else if err == nil {
			return "nothing"
		}
		return "read:" + unix.ErrnoName(errno(err))
	}
	return unix.ErrnoName(errno(err))
}

func errno(err error) (e syscall.Errno) {
	errors.As(err, &e)
	return e
}

// probe makes a connection for each byte of its standard input.
func probe(addr string) {
	for {
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return
		}
		fmt.Print(attempt(addr), " ")
	}
}

// hammer makes connections all the time until its standard input ends, and says what
// became of them.
func hammer(addr string) {
	var done atomic.Bool
	go func() { os.Stdin.Read(make([]byte, 1)); done.Store(true) }()
	seen := map[string]int{}
	for !done.Load() {
		seen[attempt(addr)]++
	}
	for what, n := range seen {
		fmt.Print(what, "=", n, " ")
	}
}

// ask pokes a child and returns its next word.
func (p *proc) ask() string {
	p.t.Helper()
	p.poke()
	word, err := p.out.ReadString(' ')
	if err != nil {
		p.t.Fatalf("child ended: %s%s", p.said.String(), word)
	}
	return strings.TrimSpace(word)
}

// A listener that comes and goes while clients connect all the time, and while we
// look after the sockets that listen: when it is there an allowed client gets through at once, when it
// is not, the port refuses; a client that is not allowed never gets through, nor is
// accepted. Nothing is left.
func TestListenerComesAndGoes(t *testing.T) {
	const cycles = 100
	for _, action := range []l7rules.Action{l7rules.ActionRedirect, l7rules.ActionAllow} {
		t.Run(fmt.Sprint("action ", action), func(t *testing.T) {
			f := ingressFixture(t, ingress(row(clientIdentity, 80, action)))
			w := f.forward()
			go func() {
				for range w.seen {
				}
			}()
			t.Cleanup(func() { close(w.seen) })
			dst := addrB4 + ":80"
			server := spawn(t, f.cgroup, f.b, 0, "flicker", dst)
			client := spawn(t, f.cgroup, f.a, 0, "probe", dst)
			load := spawn(t, f.cgroup, f.a, 0, "hammer", dst)
			stranger := spawn(t, newCgroup(t), f.a, 0, "hammer", dst) // its connections have no entry
			stop := make(chan struct{})
			var swept sync.WaitGroup
			end := sync.OnceFunc(func() { close(stop); swept.Wait() })
			t.Cleanup(end)
			swept.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := f.d.Resync(); err != nil {
						t.Error(err)
						return
					}
				}
			})
			for i := range cycles {
				if got := server.ask(); got != "open" {
					t.Fatalf("server: %s", got)
				}
				if got := client.ask(); got != "hello" {
					t.Fatalf("cycle %d: to an open port: %s", i, got)
				}
				if got := server.ask(); got != "closed" {
					t.Fatalf("server: %s", got)
				}
				if got := client.ask(); got != "ECONNREFUSED" {
					t.Fatalf("cycle %d: to a closed port: %s", i, got)
				}
			}
			end()
			outcomes := load.wait()
			t.Log("clients: ", outcomes)
			if !strings.Contains(outcomes, "hello=") || !strings.Contains(outcomes, "ECONNREFUSED=") {
				t.Errorf("clients: %s", outcomes)
			}
			for _, o := range strings.Fields(stranger.wait()) {
				what, _, _ := strings.Cut(o, "=")
				if !slices.Contains([]string{"ECONNREFUSED", "ETIMEDOUT", "EINPROGRESS"}, what) {
					t.Errorf("a client that is not allowed: %s", o)
				}
			}
			client.wait()
			server.wait()
			for range 3 {
				if err := f.d.Resync(); err != nil {
					t.Fatal(err)
				}
			}
			left, err := f.d.listeningTable()
			if err != nil || len(left) != 0 {
				t.Errorf("left in the table: %v, %v", left, err)
			}
			f.nothingLeft()
		})
	}
}
