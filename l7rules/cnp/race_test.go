//go:build race

package cnp

// slow is how much longer the race detector may make what is measured.
const slow = 15
