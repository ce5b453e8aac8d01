//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// client is the application: it sends what its arguments say, METHOD URL after
// METHOD URL, and prints one outcome a line. It has no idea that anybody judges it.
func client(args []string) {
	c := http.Client{Timeout: 10 * time.Second}
	for ; len(args) >= 2; args = args[2:] {
		req, err := http.NewRequest(args[0], args[1], strings.NewReader(""))
		if err != nil {
			fmt.Println(err)
			continue
		}
		resp, err := c.Do(req)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			fmt.Println("refused")
		case err != nil:
			fmt.Println(err)
		default:
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			fmt.Println(resp.StatusCode)
		}
	}
}
