//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/e2e/internal/binary"
	"github.com/weir-proxy/weir/e2e/internal/origin"
	"github.com/weir-proxy/weir/e2e/internal/traces"
)

const publicOnly = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: public-only}
spec:
  endpointSelector: {}
  egress:
  - toEntities: [host]
    toPorts:
    - ports: [{port: "%d", protocol: TCP}]
%s`

const onlyPublicPath = `      rules:
        http: [{method: GET, path: "/public([/?].*)?"}]
`

// A command whose weir is killed is cut off: nothing of it reaches the origin any
// more, whether its connections went through the proxy or were open, and whether
// it comes before or after the next weir has swept up.
func TestKillCutsOff(t *testing.T) {
	binary.NeedKernel(t, weirBinary)
	for _, c := range []struct{ name, rules string }{
		{"through the proxy", onlyPublicPath},
		{"native", ""},
	} {
		t.Run(c.name, func(t *testing.T) { testKill(t, c.rules) })
	}
}

func testKill(t *testing.T, rules string) {
	before, err := traces.Now()
	if err != nil {
		t.Fatal(err)
	}
	web, err := origin.Start("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	steps, policy := filepath.Join(dir, "steps"), filepath.Join(dir, "policy.yaml")
	if err := os.Symlink(self, steps); err != nil { // TestMain goes by the name
		t.Fatal(err)
	}
	if err := os.WriteFile(policy, fmt.Appendf(nil, publicOnly, web.Port, rules), 0o644); err != nil {
		t.Fatal(err)
	}

	weir := exec.Command(weirBinary, "run", "--policy", policy, "--log", filepath.Join(dir, "records"), "--",
		steps, fmt.Sprintf("http://127.0.0.1:%d/public", web.Port))
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer outR.Close()
	defer inW.Close() // ends the command
	weir.Stdin, weir.Stdout, weir.Stderr = inR, outW, os.Stderr
	if err := weir.Start(); err != nil {
		t.Fatal(err)
	}
	inR.Close()
	outW.Close()
	lines := bufio.NewReader(outR)
	step := func() (string, error) {
		if _, err := fmt.Fprintln(inW); err != nil {
			return "", err
		}
		return lines.ReadString('\n')
	}

	if got, err := step(); got != "200\n" {
		t.Fatalf("alive: %q, %v", got, err)
	}
	if err := weir.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	weir.Process.Wait()
	for range 20 {
		got, err := step()
		if err != nil {
			t.Fatalf("the command should outlive its weir, without a network: %v", err)
		}
		if got != "refused\n" {
			t.Fatalf("after weir was killed: %q, not refused", got)
		}
	}
	if out, err := exec.Command(weirBinary, "run", "--policy", policy, "--", "true").CombinedOutput(); err != nil {
		t.Fatalf("the next weir run: %v\n%s", err, out)
	}
	if got, err := step(); err == nil && !strings.HasPrefix(got, "refused") {
		t.Errorf("after the next weir run: %q", got)
	}
	if n := len(web.Requests()); n != 1 {
		t.Errorf("%d requests reached the origin, not 1", n)
	}
	inW.Close()
	io.Copy(io.Discard, outR)
	// Only a start after the command's end can have swept everything.
	if out, err := exec.Command(weirBinary, "run", "--policy", policy, "--", "true").CombinedOutput(); err != nil {
		t.Fatalf("the last weir run: %v\n%s", err, out)
	}
	left, err := traces.Left(before)
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range left {
		t.Errorf("left behind: %s", what)
	}
}
