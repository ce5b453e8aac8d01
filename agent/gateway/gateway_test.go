package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// policy is one document that selects app=client, with this below egress.
func policy(t *testing.T, egress string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	text := "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\nspec:\n  endpointSelector: {matchLabels: {app: client}}\n  egress:\n" + egress
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func config(t *testing.T, to, file string) Config {
	return Config{
		Policies: []string{file},
		Listen:   "127.0.0.1:0",
		To:       netip.MustParseAddrPort(to),
		From:     []string{"app=client"},
		Notes:    func(s string) { t.Log(s) },
	}
}

// start opens and serves a gateway; records collects one line per record.
func start(t *testing.T, c Config) (addr string, records func() []string) {
	t.Helper()
	g, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var lines []string
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- g.Serve(ctx, func(r *flow.Record) {
			mu.Lock()
			defer mu.Unlock()
			line := fmt.Sprint(r.Source.Name, " -> ", r.Destination.Name, " ", r.Verdict)
			if r.Request != nil {
				line += " " + string(r.Request.AppendText(nil))
			}
			if r.Policy != "" {
				line += " " + r.Policy
			}
			lines = append(lines, line)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return g.Addr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), lines...)
	}
}

func startOrigin(t *testing.T) (addr, port string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "origin saw "+r.Method+" "+r.RequestURI)
	}))
	t.Cleanup(s.Close)
	addr = s.Listener.Addr().String()
	_, port, _ = net.SplitHostPort(addr)
	return addr, port
}

func TestJudgesRequests(t *testing.T) {
	addr, port := startOrigin(t)
	file := policy(t, fmt.Sprintf("  - toEntities: [host]\n    toPorts:\n    - ports: [{port: %q, protocol: TCP}]\n      rules: {http: [{method: GET, path: \"/public([/?].*)?\"}]}\n", port))
	front, records := start(t, config(t, addr, file))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/public", "200 origin saw GET /public"},
		{"GET", "/public/%61/../b", "200 origin saw GET /public/b"},
		{"POST", "/public", "403 Access denied\r\n"},
		{"GET", "/public/../secret", "403 Access denied\r\n"},
	} {
		req, err := http.NewRequest(c.method, "http://"+front, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = c.path
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := fmt.Sprintf("%d %s", resp.StatusCode, body); got != c.want || err != nil {
			t.Errorf("%s %s: %s, %v; want %s", c.method, c.path, got, err, c.want)
		}
	}
	host := "http://" + front
	want := []string{
		"default/client -> host FORWARDED HTTP/1.1 GET " + host + "/public default/p[egress 0]",
		"default/client -> host FORWARDED HTTP/1.1 GET " + host + "/public/b default/p[egress 0]",
		"default/client -> host DROPPED HTTP/1.1 POST " + host + "/public",
		"default/client -> host DROPPED HTTP/1.1 GET " + host + "/secret",
	}
	if diff := cmp.Diff(want, records()); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// What the policy allows or denies without looking at requests passes, or is reset.
func TestJudgesConnections(t *testing.T) {
	addr, port := startOrigin(t)
	t.Run("allowed", func(t *testing.T) {
		front, records := start(t, config(t, addr, policy(t, fmt.Sprintf("  - toEntities: [host]\n    toPorts: [{ports: [{port: %q, protocol: TCP}]}]\n", port))))
		resp, err := http.Post("http://"+front+"/x", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, _ := io.ReadAll(resp.Body); string(b) != "origin saw POST /x" {
			t.Errorf("got %s", b)
		}
		if diff := cmp.Diff([]string{"default/client -> host FORWARDED default/p[egress 0]"}, records()); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
	})
	t.Run("denied", func(t *testing.T) {
		front, records := start(t, config(t, addr, policy(t, "  - toEntities: [host]\n    toPorts: [{ports: [{port: \"1\", protocol: TCP}]}]\n")))
		if resp, err := http.Get("http://" + front + "/x"); err == nil {
			resp.Body.Close()
			t.Error("it answered")
		}
		for _, r := range records() { // the client may have tried more than once
			if r != "default/client -> host DROPPED" {
				t.Errorf("record %q", r)
			}
		}
		if len(records()) == 0 {
			t.Error("no record")
		}
	})
}

// A destination outside is the peer of the longest prefix that a rule names.
func TestPeerOfAddress(t *testing.T) {
	file := policy(t, "  - toCIDR: [192.0.2.0/24]\n  - toCIDRSet: [{cidr: 192.0.0.0/16, except: [192.0.2.128/25]}]\n")
	for to, want := range map[string]string{
		"127.0.0.1:80":    "host",
		"127.9.9.9:80":    "host",
		"[::1]:80":        "host",
		"192.0.2.1:80":    "world 192.0.2.0/24",
		"192.0.2.200:80":  "world 192.0.2.128/25",
		"192.0.3.1:80":    "world 192.0.0.0/16",
		"198.51.100.1:80": "world",
		"[2001:db8::1]:1": "world",
	} {
		g, err := Open(t.Context(), config(t, to, file))
		if err != nil {
			t.Fatal(err)
		}
		if got := g.peer.String(); got != want {
			t.Errorf("%s is %s, want %s", to, got, want)
		}
		g.Close()
	}
}

func TestOpenErrors(t *testing.T) {
	good := policy(t, "  - toEntities: [host]\n")
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no such file":   {func(c *Config) { c.Policies = []string{"nowhere.yaml"} }, "read policy nowhere.yaml"},
		"selects nobody": {func(c *Config) { c.From = []string{"app=other"} }, "no document of the policy selects --from"},
		"bad label":      {func(c *Config) { c.From = []string{"=x"} }, "read labels of --from"},
		"bad address":    {func(c *Config) { c.Listen = "127.0.0.1:port" }, "listen for clients"},
		"not enforced":   {func(c *Config) { c.Policies = []string{policy(t, "  - toFQDNs: [{matchName: a.test}]\n")} }, "toFQDNs is not enforced yet"},
		"bad policy":     {func(c *Config) { c.Policies = []string{policy(t, "  - toEntity: [host]\n")} }, "toEntity"},
	} {
		t.Run(name, func(t *testing.T) {
			conf := config(t, "127.0.0.1:80", good)
			c.change(&conf)
			g, err := Open(t.Context(), conf)
			if err == nil {
				g.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %s", err, c.want)
			}
		})
	}
}
