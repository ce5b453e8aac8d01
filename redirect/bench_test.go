//go:build linux

package redirect

import "testing"

// What a visit to another namespace costs.
func BenchmarkNamespace(b *testing.B) {
	ns, err := openNamespace("/proc/self/ns/net")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := ns.do(func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
