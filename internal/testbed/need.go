//go:build linux

// Package testbed is what tests on a real kernel are made of. Only tests import it.
package testbed

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"
)

// NeedRoot skips a test that needs root. Where kernel tests must run
// (WEIR_REQUIRE_KERNEL=1) that is a failure.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "this test needs root")
	}
}

// NeedKernel skips a test where this process is not root or may not use bpf(2). Where
// kernel tests must run that is a failure.
func NeedKernel(t testing.TB) {
	t.Helper()
	NeedRoot(t)
	// An array map needs CAP_BPF and a kernel that lets this process use bpf(2).
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		Missing(t, "this test needs bpf(2): "+err.Error())
	}
	m.Close()
}

// Missing skips a test that cannot run here, for a reason; where kernel tests must run
// it fails it.
func Missing(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("WEIR_REQUIRE_KERNEL") == "1" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
