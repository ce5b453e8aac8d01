//go:build !race

package prove

// slow is how much less of what is random or long the race detector gets to see.
const slow = 1
