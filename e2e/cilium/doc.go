// Package cilium compares this module's policy engine with Cilium's own: random
// policies, endpoints and flows are put to both, and where the two do not agree the
// difference must be one that docs/cilium-differences.md names.
//
// It is a Go module of its own, so that Cilium is no dependency of Weir.
package cilium
