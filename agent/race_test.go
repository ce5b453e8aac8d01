//go:build linux && race

package agent

// slack is what the race detector costs.
const slack = 5
