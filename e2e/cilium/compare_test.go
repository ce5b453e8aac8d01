package cilium

import (
	"flag"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seed      = flag.Uint64("seed", 1, "of the random policies and connections")
	only      = flag.Int("set", -1, "look at the set of policies with this number only")
	during    = flag.Duration("for", time.Minute, "how long to compare")
	documents = flag.Int("documents", 5_000, "how many mutated documents to read")
	least     = flag.Int("connections", 100_000, "how many to compare at least, however long it takes")
)

const (
	connectionsPerSet = 150
	requestsOfProxied = 10
	maxFailures       = 5 // sets of policies that are reported
)

// tally counts what was compared.
type tally struct {
	mu       sync.Mutex
	outcomes map[string]int
}

func (n *tally) add(outcome string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.outcomes[outcome]++
}

func outcome(v verdict) string {
	switch {
	case v.allowed && v.proxied:
		return "proxied"
	case v.allowed:
		return "allowed"
	}
	return "denied"
}

// Random policies mean the same to both engines.
func TestVerdicts(t *testing.T) {
	o, err := newOracle()
	if err != nil {
		t.Fatal(err)
	}
	n := &tally{outcomes: map[string]int{}}
	var next, compared, requests, sets, failures atomic.Int64
	start := time.Now()
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for failures.Load() < maxFailures && (time.Since(start) < *during || compared.Load() < int64(*least)) {
				number := next.Add(1) - 1
				if *only >= 0 {
					if number > 0 {
						return
					}
					number = int64(*only)
				}
				if err := o.compareSet(uint64(number), n, &compared, &requests); err != nil {
					failures.Add(1)
					t.Errorf("seed %d, set %d: %v", *seed, number, err)
				}
				sets.Add(1)
			}
		})
	}
	workers.Wait()
	t.Logf("seed %d: %d sets of policies, %d connections, %d requests in %v", *seed, sets.Load(), compared.Load(), requests.Load(), time.Since(start).Round(time.Second))
	for _, k := range sortedKeys(n.outcomes) {
		t.Logf("%8d %s", n.outcomes[k], k)
	}
	if *only >= 0 || t.Failed() {
		return
	}
	// Random policies must reach every outcome often, or they show nothing.
	for _, k := range []string{"allowed", "denied", "proxied", "request forwarded by the proxy", "request dropped by the proxy"} {
		if int64(n.outcomes[k]) < compared.Load()/100 {
			t.Errorf("only %d times %s", n.outcomes[k], k)
		}
	}
}

func (o *oracle) compareSet(number uint64, n *tally, compared, requests *atomic.Int64) error {
	g := newGenerator(*seed, number)
	w, disagreements, err := o.newWorld(g.documents())
	if err != nil {
		return err
	}
	near := portsIn(w.docs)
	for range connectionsPerSet {
		c := g.connection(near)
		v, d := w.judge(c)
		if v.proxied {
			// Few are, and theirs are the requests that say something.
			g.addRequests(c, requestsOfProxied)
			v, d = w.judge(c)
		}
		compared.Add(1)
		requests.Add(int64(len(c.requests)))
		n.add(outcome(v))
		for _, ok := range v.requests {
			if v.proxied {
				n.add(map[bool]string{true: "request forwarded by the proxy", false: "request dropped by the proxy"}[ok])
			}
		}
		if d != nil {
			disagreements = append(disagreements, d)
		}
	}
	for _, d := range disagreements {
		name := d.explanation()
		if name == "" {
			// The others of this set are most likely the same one.
			return fmt.Errorf("a difference that docs/cilium-differences.md does not name:\n%v", o.shrink(d))
		}
		n.add("difference " + name)
	}
	return nil
}
