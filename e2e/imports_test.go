package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/weir-proxy/weir/"

// mayImport says what of this module a package may import. The longest entry
// that is the package or one of its parents holds; an import is allowed if it is
// one of the words, or below one that ends in "/...".
var mayImport = map[string]string{
	"bpf":              "",
	"identity":         "identity/...",
	"l7rules/match":    "",
	"l7rules/flow":     "identity/...",
	"l7rules":          "identity/... l7rules/...",
	"proxy":            "identity/... l7rules/...",
	"proxy/httpproxy":  "identity/names l7rules/... proxy",
	"proxy/dnsproxy":   "identity/names l7rules/... proxy",
	"proxy/kafkaproxy": "identity/names l7rules/... proxy",
	"proxy/tlsproxy":   "identity/names l7rules/... proxy",
	"redirect":         "bpf identity/... l7rules/... proxy redirect/...",
	"agent":            "identity/... l7rules/... proxy/... redirect/... agent/...",
	"agent/gateway":    "identity/... l7rules/... proxy/... agent/...",
	"examples":         "e2e/internal/...",
	"e2e":              "e2e/internal/... internal/testbed/netns",
	"internal/testbed": "",
}

// pure packages do not touch the outside world.
var pure = []string{"identity", "l7rules"}
var impure = []string{"os", "os/exec", "os/signal", "net", "net/http", "net/rpc", "io/ioutil", "syscall", "golang.org/x/sys/unix", "log"}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T, goos string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", module+"...")
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v\n%s", err, stderr.String())
	}
	var list []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

func below(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+"/")
}

func allowed(from, to string) bool {
	rule, words := "", ""
	for parent, w := range mayImport {
		if below(from, parent) && len(parent) >= len(rule) {
			rule, words = parent, w
		}
	}
	for _, word := range strings.Fields(words) {
		parent, whole := strings.CutSuffix(word, "/...")
		if to == parent || whole && below(to, parent) {
			return true
		}
	}
	return false
}

func TestImportDirection(t *testing.T) {
	for _, goos := range []string{"linux", "darwin"} {
		packages := listPackages(t, goos)
		if len(packages) < 5 {
			t.Fatalf("%s: only %d packages found", goos, len(packages))
		}
		for _, p := range packages {
			from := strings.TrimPrefix(p.ImportPath, module)
			for _, path := range p.Imports {
				to, ours := strings.CutPrefix(path, module)
				if ours && !allowed(from, to) {
					t.Errorf("%s: %s imports %s: design says it must not", goos, from, to)
				}
				for _, parent := range pure {
					for _, bad := range impure {
						if below(from, parent) && path == bad {
							t.Errorf("%s: %s imports %s, but it performs no I/O", goos, from, path)
						}
					}
				}
			}
		}
	}
}

func TestImportRules(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"agent/run", "redirect", true},
		{"agent/gateway", "redirect", false},
		{"agent/cmd/weir", "bpf", false},
		{"redirect", "bpf", true},
		{"proxy", "redirect", false},
		{"proxy", "proxy/httpproxy", false},
		{"proxy/httpproxy", "proxy", true},
		{"proxy/httpproxy", "identity", false},
		{"l7rules", "proxy", false},
		{"l7rules/cnp", "l7rules", true},
		{"l7rules/match", "l7rules/flow", false},
		{"l7rulesx", "l7rules", false},
		{"identity", "l7rules", false},
	} {
		if got := allowed(c.from, c.to); got != c.want {
			t.Errorf("%s -> %s: %v, want %v", c.from, c.to, got, c.want)
		}
	}
}
