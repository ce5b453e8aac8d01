//go:build !unix

package cnp

import "time"

var start = time.Now()

// cpuTime is the time that has passed, where a process cannot know what it used.
func cpuTime() time.Duration { return time.Since(start) }
