//go:build linux

package redirect

import "runtime"

// The main thread never ends: a goroutine that locks it, enters a namespace and
// dies would leave /proc/self/ns/net naming that namespace for ever. Keeping the
// main goroutine on it keeps all others off it.
func init() { runtime.LockOSThread() }
