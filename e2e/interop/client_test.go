//go:build linux && interop

package interop

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/weir-proxy/weir/e2e/internal/origin"
)

// clientMain is the Go client, run as a process of its own; its last argument is
// the origin's HOST:PORT.
func clientMain(what string, args []string) {
	switch what {
	case "client-generate":
		io.Copy(os.Stdout, origin.Bytes(large))
	case "client-upload":
		req, _ := http.NewRequest("POST", "http://"+args[0]+"/upload", origin.Bytes(large))
		req.ContentLength = large
		ask("", req)
	case "client-steps":
		base := "http://" + args[0]
		step := func(name, method, path string, body io.Reader) {
			req, err := http.NewRequest(method, base+path, body)
			if err != nil {
				fmt.Println(name, err)
				return
			}
			ask(name+" ", req)
		}
		step("get", "GET", "/public", nil)
		step("denied", "GET", "/denied", nil)
		step("post", "POST", "/upload", strings.NewReader("hello"))
		step("chunked", "POST", "/upload", io.MultiReader(strings.NewReader("hel"), strings.NewReader("lo")))
		step("head", "HEAD", "/public", nil)
		step("again", "GET", "/public?again", nil)
	}
}

func ask(name string, req *http.Request) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Printf("%s%v\n", name, err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		fmt.Printf("%s%v\n", name, err)
		return
	}
	if name == "" {
		fmt.Print(string(body))
		return
	}
	fmt.Printf("%s%d %s\n", name, resp.StatusCode, strings.TrimSpace(string(body)))
}
