//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	getOnly    = `{method: GET, path: "/public"}`
	getAndPost = `{method: "GET|POST", path: "/public"}`
)

func (s *stage) actsUnderRun() error {
	base := fmt.Sprintf("http://127.0.0.1:%d", s.web.Port)
	other := fmt.Sprintf("http://127.0.0.1:%d", s.other.Port)
	tries := func(post, private, elsewhere string) []try {
		return []try{
			{"GET", base + "/public", "200"},
			{"POST", base + "/public", post},
			{"GET", base + "/private", private},
			{"GET", other + "/", elsewhere},
		}
	}

	fmt.Println("\n1. No policy: everything passes.")
	if err := s.act(tries("200", "200", "200"), "--audit"); err != nil {
		return err
	}
	s.reached("GET /public", "POST /public", "GET /private", "GET /")

	file, err := s.policy("get-only.yaml", getOnly)
	if err != nil {
		return err
	}
	fmt.Printf("\n2. A policy for port %d, http: [%s]. The other port is refused before a packet leaves.\n", s.web.Port, getOnly)
	if err := s.act(tries("403", "403", "refused"), "--policy", file); err != nil {
		return err
	}
	s.reached("GET /public")

	file, err = s.policy("get-and-post.yaml", getAndPost)
	if err != nil {
		return err
	}
	fmt.Printf("\n3. A wider one, http: [%s]: the POST passes.\n", getAndPost)
	if err := s.act(tries("200", "403", "refused"), "--policy", file); err != nil {
		return err
	}
	s.reached("GET /public", "POST /public")
	return s.actWithAgent()
}

// act runs the client under weir run.
func (s *stage) act(tries []try, flags ...string) error {
	records := filepath.Join(s.dir, "records")
	defer os.Remove(records)
	shown := "$ weir run " + flags[0]
	if len(flags) > 1 {
		shown += " " + filepath.Base(flags[1])
	}
	fmt.Println("   " + shown + " -- client")
	args := append([]string{"run"}, flags...)
	args = append(args, "--log", records, "--", s.client)
	out, err := s.runClient(exec.Command(s.weir, append(args, s.clientArgs(tries)...)...))
	if err != nil {
		return err
	}
	s.check(tries, out)
	s.printRecords(records)
	return nil
}

func (s *stage) actsThroughGateway() error {
	for i, a := range []struct {
		title, rules, post string
		reached            []string
	}{
		{"A policy, http: [" + getOnly + "]", getOnly, "403", []string{"GET /public"}},
		{"A wider one, http: [" + getAndPost + "]: the POST passes", getAndPost, "200", []string{"GET /public", "POST /public"}},
	} {
		file, err := s.policy(fmt.Sprintf("policy-%d.yaml", i+1), a.rules)
		if err != nil {
			return err
		}
		fmt.Printf("\n%d. %s.\n", i+1, a.title)
		if err := s.gatewayAct(file, a.post); err != nil {
			return err
		}
		s.reached(a.reached...)
	}
	fmt.Println()
	return nil
}

// gatewayAct runs the client against weir gateway.
func (s *stage) gatewayAct(policy, post string) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	to := fmt.Sprintf("127.0.0.1:%d", s.web.Port)
	records := filepath.Join(s.dir, "records")
	defer os.Remove(records)
	fmt.Printf("   $ weir gateway --policy %s --listen %s --to %s --from app=client\n", filepath.Base(policy), listen, to)
	gateway := exec.Command(s.weir, "gateway", "--policy", policy, "--listen", listen, "--to", to, "--from", "app=client", "--log", records)
	var stderr bytes.Buffer
	gateway.Stderr = &stderr
	gateway.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := gateway.Start(); err != nil {
		return err
	}
	stop := func() {
		gateway.Process.Signal(syscall.SIGTERM)
		gateway.Wait()
	}
	if err := waitForPort(listen); err != nil {
		stop()
		return fmt.Errorf("start gateway: %w: %s", err, stderr.String())
	}
	base := "http://" + listen
	tries := []try{
		{"GET", base + "/public", "200"},
		{"POST", base + "/public", post},
		{"GET", base + "/private", "403"},
	}
	out, err := s.runClient(exec.Command(s.client, s.clientArgs(tries)...))
	stop()
	if err != nil {
		return err
	}
	s.check(tries, out)
	s.printRecords(records)
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func waitForPort(addr string) error {
	for deadline := time.Now().Add(5 * time.Second); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}
