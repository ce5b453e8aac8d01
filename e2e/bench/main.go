//go:build linux

// Bench measures what weir costs: nginx with a small reply and wrk with 32
// keep-alive connections, once directly, once with weir between them, once with
// HAProxy (one thread, the same rule), in rounds that take turns so that a busy
// moment of the machine hits all alike. It prints a Markdown table; the ratios
// are medians over the rounds' own ratios.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// bar is what weir must reach beside HAProxy, in requests per second.
const bar = 1.0

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	weir := flag.String("weir", "bin/weir", "the binary to measure")
	rounds := flag.Int("rounds", 7, "rounds, each of which measures every way once")
	seconds := flag.Int("seconds", 5, "seconds of load in each measurement")
	conns := flag.Int("conns", 32, "keep-alive connections")
	via := flag.String("via", "run", "comma-separated: run (the kernel's redirection), gateway (the same judge behind a plain listener)")
	assert := flag.Float64("assert", 0, fmt.Sprintf("fail below this share of the bar (%.1f x HAProxy)", bar))
	flag.Parse()
	if err := bench(*weir, *rounds, time.Duration(*seconds)*time.Second, *conns, strings.Split(*via, ","), *assert); err != nil {
		log.Fatal(err)
	}
}

func bench(weir string, rounds int, load time.Duration, conns int, vias []string, assert float64) error {
	weir, err := filepath.Abs(weir)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "weir-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	b := &setting{dir: dir, weir: weir, load: load, conns: conns}
	defer b.stop()
	if err := b.startNginx(); err != nil {
		return err
	}
	if err := b.startHAProxy(); err != nil {
		return err
	}
	ways := []way{{"direct", b.direct}, {"HAProxy", b.haproxy}}
	for _, v := range vias {
		switch v {
		case "run":
			ways = append(ways, way{"weir run", b.weirRun})
		case "gateway":
			if err := b.startGateway(); err != nil {
				return err
			}
			ways = append(ways, way{"weir gateway", b.gateway})
		default:
			return fmt.Errorf("-via %q: want run or gateway", v)
		}
	}

	results := make([][]result, len(ways)) // by way, then by round
	for round := range rounds {
		fmt.Fprintf(os.Stderr, "round %d/%d:", round+1, rounds)
		for i := range ways {
			w := (i + round) % len(ways) // nobody always goes first
			r, err := ways[w].measure()
			if err != nil {
				return fmt.Errorf("measure %s: %w", ways[w].name, err)
			}
			fmt.Fprintf(os.Stderr, "  %s %.0f/s", ways[w].name, r.rate)
			results[w] = append(results[w], r)
		}
		fmt.Fprintln(os.Stderr)
	}

	fmt.Printf("\n%s\nwrk, 1 thread, %d keep-alive connections, %d rounds of %v; medians.\n\n", machine(), conns, rounds, load)
	fmt.Println("| way | requests/s | x direct | x HAProxy | p50 | p99 | CPU s per 100k requests |")
	fmt.Println("|---|---|---|---|---|---|---|")
	failed := false
	for i, w := range ways {
		all := results[i]
		haproxy := ratio(all, results[1])
		cpu := "-"
		if i > 0 {
			cpu = fmt.Sprintf("%.2f", median(all, func(r result) float64 { return r.cpu.Seconds() / float64(r.requests) * 1e5 }))
		}
		fmt.Printf("| %s | %.0f | %.2f | %.2f | %v | %v | %s |\n", w.name,
			median(all, func(r result) float64 { return r.rate }), ratio(all, results[0]), haproxy,
			time.Duration(median(all, func(r result) float64 { return float64(r.p50) })),
			time.Duration(median(all, func(r result) float64 { return float64(r.p99) })), cpu)
		if strings.HasPrefix(w.name, "weir") && haproxy < assert*bar {
			failed = true
		}
	}
	if failed {
		return fmt.Errorf("below %.2f of the bar of %.1f x HAProxy", assert, bar)
	}
	return nil
}

type way struct {
	name    string
	measure func() (result, error)
}

// result is one measurement.
type result struct {
	rate     float64 // requests per second
	requests int
	p50, p99 time.Duration
	cpu      time.Duration // user and system time of the proxy; 0 for direct
}

func median(all []result, of func(result) float64) float64 {
	var v []float64
	for _, r := range all {
		v = append(v, of(r))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// ratio is the median of the rates' ratios round by round.
func ratio(a, b []result) float64 {
	var v []float64
	for i := range a {
		v = append(v, a[i].rate/b[i].rate)
	}
	slices.Sort(v)
	return v[len(v)/2]
}
