//go:build linux && !race

package agent

const slack = 1
