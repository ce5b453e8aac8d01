//go:build linux

package main

import (
	"os"
	"testing"
	"time"
)

const report = `Running 2s test @ http://127.0.0.1:8080/public
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   268.81us   97.83us   3.34ms   88.35%
    Req/Sec   117.61k     5.01k  122.81k    85.71%
  Latency Distribution
     50%  251.00us
     75%  299.00us
     90%  351.00us
     99%    1.02ms
  245783 requests in 2.10s, 45.94MB read
Requests/sec: 117039.11
Transfer/sec:     21.88MB
`

func TestParseWrk(t *testing.T) {
	r, err := parseWrk(report)
	want := result{rate: 117039.11, requests: 245783, p50: 251 * time.Microsecond, p99: 1020 * time.Microsecond}
	if err != nil || r != want {
		t.Errorf("%+v, %v, want %+v", r, err, want)
	}
	for _, bad := range []string{"", report + "  Non-2xx or 3xx responses: 4\n", report + "  Socket errors: connect 0, read 32, write 0, timeout 0\n"} {
		if r, err := parseWrk(bad); err == nil {
			t.Errorf("no error but %+v for %q", r, bad)
		}
	}
}

func TestRatioIsTheMedianOfRatios(t *testing.T) {
	a := []result{{rate: 10}, {rate: 20}, {rate: 90}}
	b := []result{{rate: 10}, {rate: 40}, {rate: 30}}
	if got := ratio(a, b); got != 1 {
		t.Errorf("ratio %v, want 1", got)
	}
}

func TestCPUTimeGrowsWithWork(t *testing.T) {
	start, deadline := cpuTime(os.Getpid()), time.Now().Add(10*time.Second)
	for cpuTime(os.Getpid()) < start+50*time.Millisecond {
		if time.Now().After(deadline) {
			t.Fatal("10 s of work and no CPU time")
		}
	}
}
