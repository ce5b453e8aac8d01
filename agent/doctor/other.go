//go:build !linux

package doctor

import "runtime"

// Check says that this is not Linux.
func Check() *Report {
	return &Report{Findings: []Finding{{
		State:  Missing,
		What:   "Linux",
		Detail: "this is " + runtime.GOOS,
		Fix:    "weir run needs Linux 6.1 or newer; weir gateway judges the same requests on any system",
	}}}
}
