//go:build linux && interop

package interop

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/weir-proxy/weir/e2e/internal/origin"
)

const (
	large  = 1 << 30
	memory = 64 << 20 // the most that weir may hold while it carries a large body
)

var largeHash = sync.OnceValue(func() string {
	sum := sha256.New()
	io.Copy(sum, origin.Bytes(large))
	return hex.EncodeToString(sum.Sum(nil))
})

// Each command prints the hash of 1 GiB as the far end received it.
func TestLargeBodies(t *testing.T) {
	if testing.Short() {
		t.Skip("moves gigabytes")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		command []string
	}{
		{"curl-upload-chunked", []string{"sh", "-c", fmt.Sprintf(`%s client-generate | curl -sS -X POST -T - http://$1/upload`, self), "sh"}},
		{"curl-download", []string{"sh", "-c", fmt.Sprintf(`curl -sS http://$1/download/%d | sha256sum`, large), "sh"}},
		{"go-upload-with-length", []string{self, "client-upload"}},
	} {
		eachWay(t, c.name, func(t *testing.T, launch launcher) {
			web := startOrigin(t)
			out, peak := launch(t, web.Port, c.command...)
			if got := strings.TrimRight(strings.TrimSpace(out), " -"); got != largeHash() {
				t.Errorf("the far end received %q, not %s", got, largeHash())
			}
			t.Logf("weir's peak resident set: %d KiB", peak>>10)
			if peak > memory {
				t.Errorf("weir's peak resident set is %d KiB, above %d", peak>>10, memory>>10)
			}
		})
	}
}
