//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/weir-proxy/weir/e2e/internal/origin"
	"github.com/weir-proxy/weir/internal/testbed/netns"
)

// The services of the fourth act, each a network namespace on a wire to orders.
const (
	ordersAddr    = "198.19.1.1"
	frontendAddr  = "198.19.1.2"
	neighbourAddr = "198.19.1.3"
	ordersPort    = 8080
)

const ordersPolicy = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: orders, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: orders}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: frontend}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{method: GET}]}
`

// actWithAgent shows a service that protects itself: weir agent, three namespaces, and
// a policy that names one of the other two by its label.
func (s *stage) actWithAgent() (err error) {
	fmt.Println("\n4. The other side: a service says who may ask it what, and knows who asks.")
	for _, name := range []string{"orders", "frontend", "neighbour"} {
		if err := netns.Make(s.namespace(name)); err != nil {
			return fmt.Errorf("make namespace %s: %w", name, err)
		}
		defer netns.Remove(s.namespace(name))
	}
	for i, name := range []string{"frontend", "neighbour"} {
		if err := s.wire(name, []string{frontendAddr, neighbourAddr}[i]); err != nil {
			return fmt.Errorf("wire %s to orders: %w", name, err)
		}
	}
	var orders *origin.Server
	err = netns.Inside(s.namespace("orders"), func() (err error) {
		orders, err = origin.StartAt(ordersPort, ordersAddr)
		return err
	})
	if err != nil {
		return err
	}
	defer orders.Close()

	stop, err := s.startAgent()
	if err != nil {
		return err
	}
	url := fmt.Sprintf("http://%s:%d/basket", ordersAddr, ordersPort)
	for _, c := range []struct {
		name  string
		tries []try
	}{
		{"frontend", []try{{"GET", url, "200"}, {"POST", url, "403"}}},
		{"neighbour", []try{{"GET", url, "refused"}}},
	} {
		fmt.Printf("   In namespace %s:\n", c.name)
		cmd := exec.Command(s.client, s.clientArgs(c.tries)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		var out string
		err := netns.Inside(s.namespace(c.name), func() (err error) { // where its process is made
			out, err = s.runClient(cmd)
			return err
		})
		if err != nil {
			stop()
			return err
		}
		s.check(c.tries, out)
	}
	if err := stop(); err != nil {
		return err
	}
	s.printRecords(filepath.Join(s.dir, "agent.records"))
	var got []string
	for _, r := range orders.Requests() {
		got = append(got, fmt.Sprintf("%s %s from %s", r.Method, r.Target, r.Remote.Addr()))
	}
	fmt.Printf("   The service's own log: %s\n", strings.Join(got, ", "))
	if want := "GET /basket from " + frontendAddr; strings.Join(got, ", ") != want {
		s.wrong++
		fmt.Printf("   WRONG: it should be: %s\n", want)
	}
	return nil
}

// startAgent writes the agent's files and starts it; stop ends it.
func (s *stage) startAgent() (stop func() error, err error) {
	config := "policies: [" + filepath.Join(s.dir, "orders.yaml") + "]\nworkloads:\n"
	shown := ""
	for _, name := range []string{"orders", "frontend", "neighbour"} {
		label := name
		if name == "neighbour" {
			label = "reports"
		}
		config += fmt.Sprintf("- {name: %s, namespace: shop, labels: {app: %s}, netns: %s}\n", name, label, s.namespace(name))
		shown += fmt.Sprintf("   | - {name: %s, namespace: shop, labels: {app: %s}, netns: %s}\n", name, label, name)
	}
	config += fmt.Sprintf("log: {file: %s}\nsocket: %s\n", filepath.Join(s.dir, "agent.records"), filepath.Join(s.dir, "agent.sock"))
	for name, text := range map[string]string{"agent.yaml": config, "orders.yaml": ordersPolicy} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	fmt.Printf("   ingress of app=orders: from app=frontend, port %d, http: [{method: GET}]\n", ordersPort)
	fmt.Printf("   $ weir agent --config agent.yaml, with workloads:\n%s", shown)
	agent := exec.Command(s.weir, "agent", "--config", filepath.Join(s.dir, "agent.yaml"))
	var stderr bytes.Buffer
	agent.Stderr = &stderr
	if err := agent.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- agent.Wait() }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, err := exec.Command(s.weir, "status", "--socket", filepath.Join(s.dir, "agent.sock")).CombinedOutput()
		if err == nil && strings.Contains(string(out), "3 ready") {
			break
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("weir agent ended: %s", stderr.String())
		default:
		}
		if time.Now().After(deadline) {
			agent.Process.Kill()
			<-ended
			return nil, fmt.Errorf("weir agent is not ready: %s%s", out, stderr.String())
		}
	}
	return func() error {
		agent.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			return fmt.Errorf("weir agent: %w: %s", err, stderr.String())
		}
		return nil
	}, nil
}

func (s *stage) namespace(name string) string { return filepath.Join(s.dir, "netns-"+name) }

// wire joins a namespace to orders.
func (s *stage) wire(name, addr string) error {
	own, orders := []netip.Prefix{netip.MustParsePrefix(addr + "/32")}, []netip.Prefix{netip.MustParsePrefix(ordersAddr + "/32")}
	return netns.Wire(
		netns.End{Path: s.namespace("orders"), Device: "to-" + name, Addrs: orders, Routes: own},
		netns.End{Path: s.namespace(name), Device: "eth0", Addrs: own, Routes: orders})
}
