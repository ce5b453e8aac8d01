//go:build linux

package discover

import (
	"slices"
	"strings"
)

// Capabilities with which a process can act below the hooks that judge it: by packets
// of its own making (NET_RAW), by rewriting packets later (NET_ADMIN), by taking the
// hooks away (BPF, SYS_ADMIN, SYS_MODULE).
var wayOut = []string{"BPF", "NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_MODULE"}

// netRaw is the one of them that Docker gives to every container.
const netRaw = "NET_RAW"

// heldBy returns which of wayOut the processes of a container may hold, as Docker
// computes capabilities: ALL in --cap-add or --privileged, ALL in --cap-drop, else
// Docker's default set; drops win where ALL was added, adds win over drops of ALL.
func (h hostConfig) heldBy() []string {
	if h.Privileged {
		return slices.Clone(wayOut)
	}
	add, drop := capNames(h.CapAdd), capNames(h.CapDrop)
	var held []string
	for _, c := range wayOut {
		base := c == netRaw
		switch {
		case slices.Contains(add, "ALL"):
			base = !slices.Contains(drop, c)
		case slices.Contains(drop, "ALL"):
			base = slices.Contains(add, c)
		default:
			base = base && !slices.Contains(drop, c) || slices.Contains(add, c)
		}
		if base {
			held = append(held, c)
		}
	}
	return held
}

func capNames(list []string) []string {
	var names []string
	for _, c := range list {
		names = append(names, strings.TrimPrefix(strings.ToUpper(c), "CAP_"))
	}
	return names
}
