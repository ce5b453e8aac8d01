//go:build linux

// Demo shows on one screen what weir does: the same client, which knows nothing
// of it, without a policy, under one, and under a wider one. It exits 0 only if
// every request had the outcome it says, and if what was denied never reached
// the service.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/e2e/internal/origin"
	"github.com/weir-proxy/weir/e2e/internal/traces"
)

// The main thread never ends, and must not be left in another namespace.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) > 1 && os.Args[1] == "client" {
		client(os.Args[2:])
		return
	}
	weir := flag.String("weir", "bin/weir", "the binary to show")
	viaGateway := flag.Bool("gateway", false, "show the requests through weir gateway, as where the kernel refuses bpf(2)")
	flag.Parse()
	if err := demo(*weir, *viaGateway); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

// stage is what every act plays on.
type stage struct {
	weir   string
	dir    string
	client string // a copy of this program that any user may run
	web    *origin.Server
	other  *origin.Server // on a port no policy names
	wrong  int
}

func demo(weir string, viaGateway bool) error {
	weir, err := filepath.Abs(weir)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "weir-demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &stage{weir: weir, dir: dir, client: filepath.Join(dir, "client")}
	if err := s.copyClient(); err != nil {
		return err
	}
	if s.web, err = origin.Start("127.0.0.1"); err != nil {
		return err
	}
	defer s.web.Close()
	if s.other, err = origin.Start("127.0.0.1"); err != nil {
		return err
	}
	defer s.other.Close()

	reason := ""
	if out, err := exec.Command(weir, "doctor", "--quiet").CombinedOutput(); err != nil {
		reason = strings.TrimSpace(string(out))
		if reason == "" {
			reason = err.Error()
		}
	}
	before, err := traces.Now()
	if err != nil && reason == "" {
		return err
	}
	fmt.Printf("A web service listens on 127.0.0.1:%d, another on port %d.\n", s.web.Port, s.other.Port)
	if reason == "" && !viaGateway {
		err = s.actsUnderRun()
		if err == nil {
			err = s.nothingLeft(before)
		}
	} else {
		if reason != "" {
			fmt.Println("\n$ weir doctor")
			out, _ := exec.Command(weir, "doctor").CombinedOutput()
			fmt.Print(indent(string(out)))
		}
		err = s.actsThroughGateway()
	}
	if err != nil {
		return err
	}
	if s.wrong > 0 {
		return fmt.Errorf("%d outcomes were not as said", s.wrong)
	}
	fmt.Println("Every request had the outcome it should, and what was denied never reached the service.")
	if reason != "" {
		fmt.Println("kernel redirection NOT shown:", reason)
		if os.Getenv("WEIR_REQUIRE_KERNEL") == "1" {
			return fmt.Errorf("WEIR_REQUIRE_KERNEL=1 but the kernel half did not run")
		}
	}
	return nil
}

func (s *stage) nothingLeft(before traces.Set) error {
	left, err := traces.Left(before)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		s.wrong++
		fmt.Printf("\nWRONG: left behind: %s\n", strings.Join(left, ", "))
		return nil
	}
	fmt.Println("\nOf the runs and the agent nothing is left: no program, no map, no pin, no cgroup.")
	return nil
}

// The client's program may lie where another user cannot reach it, and weir run
// starts commands as the user who called sudo.
func (s *stage) copyClient() error {
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	f, err := os.OpenFile(s.client, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, self); err != nil {
		return err
	}
	return f.Close()
}

// policy writes a policy with these http rules for the web service's port.
func (s *stage) policy(name, rules string) (string, error) {
	path := filepath.Join(s.dir, name)
	return path, os.WriteFile(path, fmt.Appendf(nil, `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: %s}
spec:
  endpointSelector: {}
  egress:
  - toEntities: [host]
    toPorts:
    - ports: [{port: "%d", protocol: TCP}]
      rules:
        http: [%s]
`, strings.TrimSuffix(name, ".yaml"), s.web.Port, rules), 0o644)
}

// try is a request and the outcome it must have: a status, or "refused".
type try struct{ method, url, want string }

// check prints the client's report beside what it should have been.
func (s *stage) check(tries []try, report string) {
	lines := strings.Split(strings.TrimSpace(report), "\n")
	if len(lines) != len(tries) {
		s.wrong++
		fmt.Printf("   WRONG: the client reported %d outcomes, not %d:\n%s", len(lines), len(tries), indent(report))
		return
	}
	for i, t := range tries {
		mark := "as it should"
		if lines[i] != t.want {
			mark = "WRONG, it should be " + t.want
			s.wrong++
		}
		fmt.Printf("   %-4s %-32s %-8s %s\n", t.method, t.url, lines[i], mark)
	}
}

// reached compares what the services saw since the last call.
func (s *stage) reached(want ...string) {
	var got []string
	for _, r := range append(s.web.Requests(), s.other.Requests()...) {
		got = append(got, r.Method+" "+r.Target)
	}
	s.web.Reset()
	s.other.Reset()
	fmt.Printf("   The services saw: %s\n", strings.Join(got, ", "))
	if !slices.Equal(got, want) {
		s.wrong++
		fmt.Printf("   WRONG: they should have seen: %s\n", strings.Join(want, ", "))
	}
}

func (s *stage) clientArgs(tries []try) []string {
	args := []string{"client"}
	for _, t := range tries {
		args = append(args, t.method, t.url)
	}
	return args
}

func (s *stage) runClient(cmd *exec.Cmd) (string, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, stderr.String())
	}
	return string(out), nil
}

func (s *stage) printRecords(file string) {
	text, err := os.ReadFile(file)
	if err != nil || len(text) == 0 {
		return
	}
	fmt.Printf("   Its records:\n%s", indent(string(text)))
}

func indent(text string) string {
	if text == "" {
		return ""
	}
	return "   | " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n   | ") + "\n"
}
