//go:build linux

package agent

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// hammer sends requests on 32 connections until a line comes, then one more on each,
// and prints how both ended.
func hammer(addr string) {
	const conns = 32
	stop := make(chan struct{})
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n')
		close(stop)
	}()
	var mu sync.Mutex
	var during, after [600]int
	var started atomic.Int32
	var wg sync.WaitGroup
	for range conns {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			defer c.Close()
			r := bufio.NewReader(c)
			get := func() int {
				fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", addr)
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					return 0
				}
				io.Copy(io.Discard, resp.Body)
				return resp.StatusCode
			}
			count := func(to *[600]int) bool {
				status := get()
				mu.Lock()
				defer mu.Unlock()
				to[status]++
				return status != 0
			}
			for first := true; ; first = false {
				select {
				case <-stop:
					count(&after)
					return
				default:
				}
				if !count(&during) {
					return
				}
				if first && started.Add(1) == conns {
					fmt.Println("all")
				}
			}
		})
	}
	wg.Wait()
	say := func(when string, n [600]int) {
		fmt.Print(when)
		for status, k := range n {
			if k > 0 {
				fmt.Printf(" %d", status)
				if when == "after:" {
					fmt.Printf(" x%d", k)
				}
			}
		}
		fmt.Println()
	}
	say("during:", during)
	say("after:", after)
}

// Policies change under load: no request fails that both allow, and the next one on
// every open connection is judged by the new policy.
func TestReloadUnderLoad(t *testing.T) {
	r := newRig(t)
	server, frontend := namespace(t), namespace(t)
	join(t, server, frontend, "10.98.0.1", "10.98.0.2", 1)
	r.setPolicies(frontendToServer)
	r.setWorkloads(
		Workload{Name: "default/server", Labels: labels(t, "app=server"), Netns: server},
		Workload{Name: "default/frontend", Labels: labels(t, "app=frontend"), Netns: frontend},
	)
	r.serve(server, r.cg, ":8080")
	cmd := r.command(frontend, r.cg, "hammer", "10.98.0.1:8080")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	said := bufio.NewReader(out)
	line := func() string {
		l, _ := said.ReadString('\n')
		return strings.TrimSpace(l)
	}
	if l := line(); l != "all" {
		t.Fatalf("client: %s", l)
	}
	wider := strings.Replace(frontendToServer, "method: GET", `method: "GET|POST"`, 1)
	other := strings.Replace(frontendToServer, "fromEndpoints: [{matchLabels: {app: frontend}}]", "fromCIDR: [10.98.0.0/16]\n  - fromEndpoints: [{}]", 1)
	for range 50 {
		for _, p := range []string{wider, other, frontendToServer} {
			r.setPolicies(p)
		}
	}
	r.setPolicies(strings.Replace(frontendToServer, "method: GET", "method: POST", 1))
	fmt.Fprintln(in, "now")
	during, after := line(), line()
	if during != "during: 200" && during != "during: 200 403" { // 403 from the last change on
		t.Error(during)
	}
	if after != "after: 403 x32" {
		t.Error(after)
	}
}
