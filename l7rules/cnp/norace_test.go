//go:build !race

package cnp

const slow = 1
