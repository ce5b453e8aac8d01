//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// client asks at random, on connections new and old, until its stdin ends, and
// prints for each request its kind, when it began and ended, and the outcome.
func client(web, other string) {
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	out := make(chan string)
	fmt.Println("pid", os.Getpid())
	for range 4 {
		go func() {
			fresh := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			kept := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
			for {
				c := kept
				if rand.IntN(2) == 0 {
					c = fresh
				}
				out <- ask(c, web, other)
			}
		}()
	}
	w := bufio.NewWriter(os.Stdout)
	for {
		select {
		case line := <-out:
			fmt.Fprintln(w, line)
			if w.Flush() != nil {
				return
			}
		case <-ended:
			return
		}
	}
}

func ask(c *http.Client, web, other string) string {
	host := []string{"127.0.0.1", "[::1]"}[rand.IntN(2)]
	method := []string{"GET", "POST"}[rand.IntN(2)]
	kind, target := "public", "http://"+host+":"+web+"/public"
	switch rand.IntN(4) {
	case 0:
		kind, target = "denied", "http://"+host+":"+web+"/denied"
	case 1:
		kind, target = "other", "http://"+host+":"+other+"/public"
	}
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader(strings.Repeat("x", rand.IntN(100_000)))
	}
	req, err := http.NewRequest(method, target, body)
	if err != nil {
		panic(err)
	}
	from := now()
	outcome := ""
	resp, err := c.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	switch {
	case err == nil:
		outcome = fmt.Sprint(resp.StatusCode)
	case errors.Is(err, syscall.ECONNREFUSED):
		outcome = "refused"
	case errors.Is(err, context.DeadlineExceeded):
		outcome = "timeout"
	default:
		outcome = "failed"
	}
	return fmt.Sprintf("%s %d %d %s", kind, from, now(), outcome)
}
