//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/weir-proxy/weir/agent"
	"github.com/weir-proxy/weir/agent/api"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// aStatus has one of everything that is printed.
var aStatus = agent.Status{
	Version: "v1.2.3", PID: 7, Started: time.Now().Add(-90 * time.Minute),
	Endpoints: []agent.EndpointStatus{
		{Name: "default/vpn", ID: 9, Identity: 300, Labels: []string{"container:name=vpn", "k8s:app="}, Place: "docker 0123456789ab", State: agent.Unconfined, Reason: "its processes have CAP_NET_ADMIN"},
		{Name: "shop/frontend", ID: 1, Identity: 256, Labels: []string{"k8s:app=frontend"}, Place: "netns /run/netns/frontend", State: agent.Ready},
		{Name: "shop/gone", Labels: []string{"k8s:app=gone"}, Place: "netns /run/netns/gone", State: agent.Waiting, Reason: "netns /run/netns/gone is not there"},
		{Name: "shop/orders", ID: 2, Identity: 257, Labels: []string{"k8s:app=orders"}, Place: "cgroup /system.slice/orders.service", State: agent.Ready,
			Ingress: agent.SideStatus{Enforced: true, Policies: []string{"shop/orders"}}},
		{Name: "shop/evil\x1b[2J", Place: "pid 8", State: agent.Refused, Reason: "it is the namespace or cgroup of shop/orders"},
	},
	Identities: []agent.IdentityStatus{
		{ID: 1, Kind: agent.KindReserved, Labels: []string{"reserved:host="}},
		{ID: 256, Kind: agent.KindEndpoint, Labels: []string{"k8s:app=frontend"}, Endpoints: []string{"shop/frontend"}},
		{ID: 258, Kind: agent.KindAddress, Labels: []string{"k8s:app=db"}, CIDRs: []string{"192.0.2.1/32", "192.0.2.2/32"}},
	},
	Policy: agent.PolicyStatus{
		Revision: 4, Applied: time.Now().Add(-49 * time.Hour),
		Documents: []agent.PolicyDocument{
			{Name: "shop/orders", Origin: "/etc/weir/policies.d/orders.yaml:5:3", Selector: "app=orders", Ingress: 2, Endpoints: []string{"shop/orders"}},
			{Name: "everybody", Spec: "specs 1", Origin: "/etc/weir/policies.d/all.yaml:9:3", Selector: "app=nobody", Egress: 1},
		},
		Error: "/etc/weir/policies.d/new.yaml:3:1: spec.egres: unknown field\nand more", Since: time.Now().Add(-70 * time.Second),
	},
	Counters: agent.Counters{EventsLost: 12, MapsFull: map[string]uint64{"flows": 3}},
}

var someRecords = []*flow.Record{
	{Time: time.Unix(0, 0).UTC(), Verdict: flow.Forwarded, Source: flow.Party{Name: "shop/frontend", Identity: 256},
		Destination: flow.Party{Name: "shop/orders", Identity: 257, Addr: netip.MustParseAddrPort("10.0.0.2:80")}, Policy: "policy=shop/orders[ingress 0]",
		Request: &l7rules.HTTPRequest{Proto: "HTTP/1.1", Method: []byte("GET"), Host: []byte("orders"), Path: []byte("/a")}},
	{Time: time.Unix(1, 0).UTC(), Source: flow.Party{Name: "shop/neighbour", Identity: 258},
		Destination: flow.Party{Name: "shop/orders", Identity: 257, Addr: netip.MustParseAddrPort("10.0.0.2:80")}, Type: "tcp-connect", Reason: "no rule"},
}

// TestAsking runs testdata/asking.txtar against an agent with the status and the records
// above. Each file is what a command prints, which is its name, and its exit status.
func TestAsking(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ring := api.NewRing()
	for _, r := range someRecords {
		ring.Sink(r)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- api.Serve(ctx, l, func() agent.Status { return aStatus }, ring) }()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		l.Release()
	}()
	const name = "testdata/asking.txtar"
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range archive.Files {
		t.Run(f.Name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := execute(t.Context(), append(strings.Fields(f.Name), "--socket", socket), &stdout, &stderr)
			got := fmt.Sprintf("%s%sexit %d\n", stdout.String(), stderr.String(), code)
			if *update {
				archive.Files[i].Data = []byte(got)
				return
			}
			if d := cmp.Diff(string(f.Data), got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
	if *update {
		if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for args, into := range map[string]any{
		"status -o json": &agent.Status{}, "endpoint list -o json": &[]agent.EndpointStatus{},
		"identity list -o json": &[]agent.IdentityStatus{}, "policy list -o json": &agent.PolicyStatus{},
	} {
		var stdout, stderr bytes.Buffer
		if code := execute(t.Context(), append(strings.Fields(args), "--socket", socket), &stdout, &stderr); code != 0 {
			t.Errorf("%s: status %d: %s", args, code, stderr.String())
		}
		dec := json.NewDecoder(&stdout)
		dec.DisallowUnknownFields()
		if err := dec.Decode(into); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m", 90 * time.Minute: "1h30m", 24 * time.Hour: "1d0h", 49*time.Hour + time.Minute: "2d1h",
	} {
		if got := age(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestNoAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	for _, args := range []string{"status", "endpoint list", "identity list", "policy list", "observe", "observe -f"} {
		var stdout, stderr bytes.Buffer
		code := execute(t.Context(), append(strings.Fields(args), "--socket", socket), &stdout, &stderr)
		if code != 1 || stdout.Len() > 0 || !strings.HasPrefix(stderr.String(), "weir: no agent runs: "+socket) {
			t.Errorf("%s: status %d, %s%s", args, code, stdout.String(), stderr.String())
		}
	}
}

func TestAgentUsage(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("workload: []\nsockets: a\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good.yaml")
	if err := os.WriteFile(good, []byte("policies: [missing.yaml]\nsocket: a.sock\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"agent", 2, "weir: --config FILE is missing\n"},
		{"agent extra", 2, "extra"},
		{"agent --config " + filepath.Join(dir, "none.yaml"), 1, "none.yaml: no such file"},
		{"agent -c " + bad, 1, bad + ":1:1: workload: unknown field: did you mean workloads?\n" + bad + ":2:1: sockets: unknown field: did you mean socket?\n"},
		{"agent -c " + good, 1, "weir: read policy " + filepath.Join(dir, "missing.yaml") + ": no such file or directory\n"},
		{"endpoint", 2, "weir: weir endpoint: a command is missing: list\n"},
		{"identity", 2, "weir: weir identity: a command is missing: list\n"},
	} {
		var stdout, stderr bytes.Buffer
		code := execute(t.Context(), strings.Fields(c.args), &stdout, &stderr)
		if code != c.code || stdout.Len() > 0 || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: status %d\n%s%s", c.args, code, stdout.String(), stderr.String())
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "a.sock*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
