//go:build !race

package l7rules

const slow = 1
