//go:build race

package l7rules

// slow is how much longer the race detector may make what is measured.
const slow = 15
