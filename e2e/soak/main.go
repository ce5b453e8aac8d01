//go:build linux

// Soak tortures weir run: several at a time, each with a client that asks at
// random for what it may have, for what it may not, and for a port that no rule
// names, while its weir is killed, terminated or left to end. At the end it
// asserts that no request had another outcome than it must, that none passed
// once its weir was dead, and that nothing is left in the kernel.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/weir-proxy/weir/e2e/internal/binary"
	"github.com/weir-proxy/weir/e2e/internal/origin"
	"github.com/weir-proxy/weir/e2e/internal/traces"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "client" {
		client(os.Args[2], os.Args[3])
		return
	}
	log.SetFlags(0)
	log.SetPrefix("soak: ")
	weir := flag.String("weir", "bin/weir", "the binary to torture")
	seconds := flag.Int("seconds", 600, "how long")
	workers := flag.Int("workers", 4, "weirs at a time")
	flag.Parse()
	binary.ForgetSudo()
	if out, err := exec.Command(*weir, "doctor", "--quiet").CombinedOutput(); err != nil {
		log.Fatalf("the kernel half does not run here: %s", strings.TrimSpace(string(out)))
	}
	if err := soak(*weir, time.Duration(*seconds)*time.Second, *workers); err != nil {
		log.Fatal(err)
	}
}

const policy = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: soak}
spec:
  endpointSelector: {}
  egress:
  - toEntities: [host]
    toPorts:
    - ports: [{port: "%d", protocol: TCP}]
      rules:
        http: [{method: "GET|POST", path: "/public([/?].*)?"}]
`

// torture is what all workers share.
type torture struct {
	weir, dir, policy string
	web, other        *origin.Server

	mu     sync.Mutex
	counts map[string]int
	wrong  []string
}

func (t *torture) count(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[what]++
}

func (t *torture) fail(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wrong = append(t.wrong, fmt.Sprintf(format, args...))
}

func soak(weir string, length time.Duration, workers int) error {
	before, err := traces.Now()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "weir-soak")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t := &torture{dir: dir, policy: filepath.Join(dir, "policy.yaml"), counts: map[string]int{}}
	if t.weir, err = filepath.Abs(weir); err != nil {
		return err
	}
	if t.web, err = origin.Start("127.0.0.1", "::1"); err != nil {
		return err
	}
	defer t.web.Close()
	if t.other, err = origin.Start("127.0.0.1", "::1"); err != nil {
		return err
	}
	defer t.other.Close()
	if err := os.WriteFile(t.policy, fmt.Appendf(nil, policy, t.web.Port), 0o644); err != nil {
		return err
	}

	var wg sync.WaitGroup
	end := time.Now().Add(length)
	for n := range workers {
		wg.Go(func() {
			for run := 0; time.Now().Before(end); run++ {
				t.life(filepath.Join(dir, fmt.Sprintf("records-%d", n)))
				t.checkOrigins()
			}
		})
	}
	wg.Wait()
	t.checkOrigins()

	// The next start sweeps up after the killed ones.
	if out, err := exec.Command(t.weir, "run", "--policy", t.policy, "--", "true").CombinedOutput(); err != nil {
		return fmt.Errorf("last run: %w: %s", err, out)
	}
	left, err := traces.Left(before)
	if err != nil {
		return err
	}
	for _, what := range left {
		t.fail("left behind: %s", what)
	}
	fmt.Printf("soak: %v, %d runs: %d killed, %d terminated, %d ended by themselves\n", length,
		t.counts["run"], t.counts["kill"], t.counts["term"], t.counts["end"])
	fmt.Printf("soak: allowed %d, denied %d, other port refused %d, cut off with their weir %d, after its death %d\n",
		t.counts["public 200"], t.counts["denied 403"], t.counts["other refused"], t.counts["cut"], t.counts["dead"])
	if len(t.wrong) > 0 {
		return fmt.Errorf("%d wrong:\n%s", len(t.wrong), strings.Join(t.wrong[:min(len(t.wrong), 20)], "\n"))
	}
	for _, must := range []string{"kill", "term", "end", "public 200", "denied 403", "other refused", "dead"} {
		if t.counts[must] == 0 {
			return fmt.Errorf("never seen: %s: the run was too short to mean anything", must)
		}
	}
	return nil
}

func (t *torture) checkOrigins() {
	for _, r := range t.web.Requests() {
		if !strings.HasPrefix(r.Target, "/public") {
			t.fail("%s %s reached the origin", r.Method, r.Target)
		}
	}
	t.web.Reset()
	if n := t.other.Conns(); n > 0 {
		t.fail("%d connections reached the port that no rule names", n)
	}
}
