//go:build unix

package cnp

import (
	"syscall"
	"time"
)

// cpuTime is what this process has used: others on the machine do not change what is
// measured.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
