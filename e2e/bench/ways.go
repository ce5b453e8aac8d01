//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// setting is the servers of a run. Every port is found free at its start.
type setting struct {
	dir, weir string
	load      time.Duration
	conns     int

	nginxPort, haproxyPort, gatewayPort int
	haproxyCmd, gatewayCmd              *exec.Cmd
	started                             []*exec.Cmd
}

const nginxConf = `daemon off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.err;
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  server { listen 127.0.0.1:%[2]d; location / { return 200 "hello from the origin\n"; } }
}
`

// The rule is written in the fastest words HAProxy has for it.
const haproxyConf = `global
  nbthread 1
  maxconn 4096
defaults
  mode http
  option http-keep-alive
  http-reuse never
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend in
  bind 127.0.0.1:%d
  acl get method GET
  acl public path /public
  acl public path_beg /public/
  http-request deny deny_status 403 unless get public
  default_backend out
backend out
  http-reuse never
  server nginx 127.0.0.1:%d
`

const policy = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: public-only}
spec:
  endpointSelector: {}
  egress:
  - toEntities: [host]
    toPorts:
    - ports: [{port: "%d", protocol: TCP}]
      rules:
        http: [{method: GET, path: "/public([/?].*)?"}]
`

func (b *setting) startNginx() error {
	b.nginxPort = freePort()
	conf, err := b.write("nginx.conf", fmt.Sprintf(nginxConf, b.dir, b.nginxPort))
	if err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil { // the worker runs as www-data
		return err
	}
	_, err = b.start(b.nginxPort, "/usr/sbin/nginx", "-p", b.dir, "-e", filepath.Join(b.dir, "nginx.err"), "-c", conf)
	return err
}

func (b *setting) startHAProxy() error {
	b.haproxyPort = freePort()
	conf, err := b.write("haproxy.cfg", fmt.Sprintf(haproxyConf, b.haproxyPort, b.nginxPort))
	if err != nil {
		return err
	}
	b.haproxyCmd, err = b.start(b.haproxyPort, "/usr/sbin/haproxy", "-db", "-q", "-f", conf)
	if err != nil {
		return err
	}
	return b.probe("HAProxy", b.haproxyPort)
}

func (b *setting) startGateway() error {
	b.gatewayPort = freePort()
	file, err := b.write("policy.yaml", fmt.Sprintf(policy, b.nginxPort))
	if err != nil {
		return err
	}
	b.gatewayCmd, err = b.start(b.gatewayPort, b.weir, "gateway", "--policy", file, "--from", "app=bench", "--log", filepath.Join(b.dir, "gateway.log"),
		"--listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(b.gatewayPort)), "--to", net.JoinHostPort("127.0.0.1", strconv.Itoa(b.nginxPort)))
	if err != nil {
		return err
	}
	return b.probe("weir gateway", b.gatewayPort)
}

// probe shows that the proxy has the rule: a benchmark of one that lets
// everything through would be worth nothing.
func (b *setting) probe(name string, port int) error {
	for path, want := range map[string]string{"/public": "200", "/denied": "403"} {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return err
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n", path)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		line, err := bufio.NewReader(c).ReadString('\n')
		c.Close()
		if err != nil || !strings.Contains(line, " "+want+" ") {
			return fmt.Errorf("%s: GET %s answered %q (%v), want %s", name, path, line, err, want)
		}
	}
	return nil
}

func (b *setting) direct() (result, error)  { return b.wrk(b.nginxPort, 0) }
func (b *setting) haproxy() (result, error) { return b.wrk(b.haproxyPort, b.haproxyCmd.Process.Pid) }
func (b *setting) gateway() (result, error) { return b.wrk(b.gatewayPort, b.gatewayCmd.Process.Pid) }

func (b *setting) wrkArgs(port int) []string {
	return []string{"wrk", "-t1", "-c" + strconv.Itoa(b.conns), "-d" + strconv.Itoa(int(b.load.Seconds())) + "s", "--latency",
		fmt.Sprintf("http://127.0.0.1:%d/public", port)}
}

// wrk loads a port and charges the CPU time of pid, if any.
func (b *setting) wrk(port, pid int) (result, error) {
	args := b.wrkArgs(port)
	before := cpuTime(pid)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return result{}, fmt.Errorf("%w: %s", err, out)
	}
	r, err := parseWrk(string(out))
	r.cpu = cpuTime(pid) - before
	return r, err
}

// weirRun runs wrk itself under weir. A shell around it waits for a line before
// and after, so that weir's own CPU time can be read while it is still there.
func (b *setting) weirRun() (result, error) {
	file, err := b.write("policy.yaml", fmt.Sprintf(policy, b.nginxPort))
	if err != nil {
		return result{}, err
	}
	records := filepath.Join(b.dir, "records")
	defer os.Remove(records)
	script := `echo ready; read -r line; "$@"; echo end; read -r line`
	cmd := exec.Command(b.weir, append([]string{"run", "--policy", file, "--log", records, "--", "sh", "-c", script, "sh"}, b.wrkArgs(b.nginxPort)...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return result{}, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return result{}, err
	}
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	defer cmd.Process.Kill()
	lines := bufio.NewReader(stdout)
	fail := func(err error) (result, error) {
		cmd.Process.Kill()
		cmd.Wait()
		return result{}, fmt.Errorf("%w: %s", err, stderr.String())
	}
	if _, err := readUntil(lines, "ready\n"); err != nil {
		return fail(err)
	}
	before := cpuTime(cmd.Process.Pid)
	fmt.Fprintln(stdin)
	out, err := readUntil(lines, "end\n")
	if err != nil {
		return fail(err)
	}
	cpu := cpuTime(cmd.Process.Pid) - before
	fmt.Fprintln(stdin)
	if err := cmd.Wait(); err != nil {
		return fail(err)
	}
	r, err := parseWrk(out)
	if err != nil {
		return fail(err)
	}
	r.cpu = cpu
	written, err := os.ReadFile(records)
	if err != nil {
		return result{}, err
	}
	if n := bytes.Count(written, []byte(" FORWARDED ")); n < r.requests {
		return result{}, fmt.Errorf("%d requests but %d records: %s", r.requests, n, stderr.String())
	}
	return r, nil
}

func readUntil(r *bufio.Reader, end string) (string, error) {
	var all strings.Builder
	for {
		line, err := r.ReadString('\n')
		if line == end {
			return all.String(), nil
		}
		all.WriteString(line)
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return all.String(), err
		}
	}
}

func (b *setting) write(name, text string) (string, error) {
	path := filepath.Join(b.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// start runs a server and waits until its port answers.
func (b *setting) start(port int, name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	b.started = append(b.started, cmd)
	for deadline := time.Now().Add(5 * time.Second); ; {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			c.Close()
			return cmd, nil
		}
		if time.Now().After(deadline) || !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("start %s: %w: %s", name, err, stderr.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (b *setting) stop() {
	for _, cmd := range b.started {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
