//go:build linux

package doctor

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/weir-proxy/weir/internal/testbed"
)

// The test binary, started again with another user or fewer capabilities, prints what
// the doctor says there.
func TestMain(m *testing.M) {
	if os.Getenv("WEIR_TEST_DOCTOR") == "" {
		os.Exit(m.Run())
	}
	r := Check()
	if r.OK() {
		os.Stdout.WriteString("OK\n")
	}
	r.WriteText(os.Stdout)
}

// doctorUnder runs the doctor below a command such as setpriv.
func doctorUnder(t *testing.T, argv ...string) string {
	t.Helper()
	testbed.NeedRoot(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "weir-doctor") // which any user may enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	copied := dir + "/doctor"
	if err := os.WriteFile(copied, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], append(argv[1:], copied)...)
	cmd.Env = append(os.Environ(), "WEIR_TEST_DOCTOR=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name  string
		under []string
		want  []string
	}{
		{"nobody", []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"},
			[]string{"missing  root", "sudo", "ok       cgroup v2", "unknown  BPF programs", "does not work here"}},
		{"root without capabilities", []string{"setpriv", "--bounding-set=-all", "--inh-caps=-all"},
			[]string{"ok       root", "missing  capabilities: without CAP_SYS_ADMIN, CAP_NET_ADMIN", "missing  bpf(2): refused", "does not work here"}},
		{"root of a user namespace", []string{"unshare", "--user", "--map-root-user"},
			[]string{"ok       root", "missing  the host's user namespace", "missing  bpf(2): refused", "--privileged"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := doctorUnder(t, c.under...)
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("lacks %q:\n%s", want, out)
				}
			}
			if strings.HasPrefix(out, "OK\n") {
				t.Errorf("says that weir run works:\n%s", out)
			}
		})
	}
}

// TestCheckHere: everything is found where the kernel tests must run.
func TestCheckHere(t *testing.T) {
	out := doctorUnder(t, "env")
	if !strings.HasPrefix(out, "OK\n") {
		testbed.Missing(t, out)
	}
	for _, want := range []string{"helpers of cgroup/connect4 programs", "sk_lookup programs", "RingBuf maps", "user namespaces", "Everything"} {
		if !strings.Contains(out, want) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
}

func TestHelperName(t *testing.T) {
	for fn, want := range map[asm.BuiltinFunc]string{asm.FnSkLookupTcp: "bpf_sk_lookup_tcp", asm.FnGetNetnsCookie: "bpf_get_netns_cookie"} {
		if got := helperName(fn); got != want {
			t.Errorf("%v: %s, want %s", fn, got, want)
		}
	}
}
