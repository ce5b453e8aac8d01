package l7rules

import (
	"testing"
	"time"
)

// decisionTime is the time of one decision, each request allowed by another rule. It is
// the lowest of many short runs, so that what else runs on the machine matters less.
func decisionTime(t *testing.T, shape string, n int) time.Duration {
	t.Helper()
	rs, requests := manyRules(t, shape, n)
	rs.Decide(requests[0]) // the first one compiles them
	const run = 64
	lowest := time.Hour
	at := 0
	for start := time.Now(); time.Since(start) < 200*time.Millisecond; {
		begin := time.Now()
		for range run {
			if !rs.Decide(requests[at]).Allowed() {
				t.Fatalf("%s of %d: %s is denied", shape, n, requests[at].AppendText(nil))
			}
			if at++; at == n {
				at = 0
			}
		}
		lowest = min(lowest, time.Since(begin))
	}
	return lowest / run
}

// A decision with 10,000 rules takes little more than with 10. docs/matching.md has what
// was measured; here is only room for a machine that does other things.
func TestDecisionTimeHardlyGrows(t *testing.T) {
	for _, shape := range []string{"literals", "mixed", "contains", "hosts", "headers", "nested"} {
		few, many := decisionTime(t, shape, 10), decisionTime(t, shape, 10_000)
		t.Logf("%s: %v with 10 rules, %v with 10,000", shape, few, many)
		// Of nested ones a request matches up to a hundred.
		if many > 8*few && shape != "nested" {
			t.Errorf("%s: %v with 10 rules, %v with 10,000", shape, few, many)
		}
	}
}
