// Command service is both sides of the example: an HTTP server, and a client that asks
// it again and again.
package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

func main() {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "serve":
		serve(os.Args[2])
	case len(os.Args) > 3 && os.Args[1] == "ask":
		for {
			for _, request := range os.Args[3:] {
				fmt.Println(request+":", ask(os.Args[2], request))
			}
			time.Sleep(2 * time.Second)
		}
	}
	fmt.Fprintln(os.Stderr, "usage: service serve ADDRESS | service ask URL 'METHOD /PATH'...")
	os.Exit(2)
}

// serve answers, and prints who asked for what.
func serve(address string) {
	err := http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, _, _ := strings.Cut(r.RemoteAddr, ":")
		fmt.Println(r.Method, r.URL.Path, "from", client)
		fmt.Fprintln(w, "here you are")
	}))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// ask sends one request, on a connection of its own, and says what came of it.
func ask(url, request string) string {
	method, path, _ := strings.Cut(request, " ")
	req, err := http.NewRequest(method, url+path, nil)
	if err != nil {
		return err.Error()
	}
	req.Close = true
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case err != nil:
		return err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
	return fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSpace(string(body)))
}
