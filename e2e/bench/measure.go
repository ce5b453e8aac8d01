//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

var (
	wrkRate     = regexp.MustCompile(`(?m)^Requests/sec:\s+([0-9.]+)`)
	wrkRequests = regexp.MustCompile(`(?m)^\s+(\d+) requests in `)
	wrkP50      = regexp.MustCompile(`(?m)^\s+50%\s+(\S+)`)
	wrkP99      = regexp.MustCompile(`(?m)^\s+99%\s+(\S+)`)
	wrkWrong    = regexp.MustCompile(`(?m)^\s*(Non-2xx.*|Socket errors.*)$`)
)

// parseWrk reads wrk's report. Any answer but 2xx, and any failed connection,
// makes the measurement worthless and is an error.
func parseWrk(out string) (result, error) {
	if wrong := wrkWrong.FindString(out); wrong != "" {
		return result{}, fmt.Errorf("wrk: %s", strings.TrimSpace(wrong))
	}
	var r result
	var err error
	text := func(re *regexp.Regexp) string {
		if m := re.FindStringSubmatch(out); m != nil {
			return m[1]
		}
		err = fmt.Errorf("no %v in wrk's report:\n%s", re, out)
		return ""
	}
	r.rate, _ = strconv.ParseFloat(text(wrkRate), 64)
	r.requests, _ = strconv.Atoi(text(wrkRequests))
	r.p50, _ = time.ParseDuration(text(wrkP50))
	r.p99, _ = time.ParseDuration(text(wrkP99))
	if err == nil && (r.rate == 0 || r.requests == 0 || r.p50 == 0 || r.p99 == 0) {
		err = fmt.Errorf("unreadable figures in wrk's report:\n%s", out)
	}
	return r, err
}

// cpuTime is the user and system time a process, all its threads, has used.
func cpuTime(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The command's name, in parentheses, may hold blanks; utime and stime are
	// the 14th and 15th field, in ticks of 1/100 s (proc(5), USER_HZ).
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// machine is one line on what the figures were taken on.
func machine() string {
	cpu := "unknown CPU"
	info, _ := os.ReadFile("/proc/cpuinfo")
	if m := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(info); m != nil {
		cpu = string(m[1])
	}
	version := func(name string, args ...string) string {
		out, _ := exec.Command(name, args...).CombinedOutput()
		return regexp.MustCompile(`\d+\.\d+[.0-9]*`).FindString(string(out))
	}
	return fmt.Sprintf("%s, %d cores, Linux %s, %s, nginx %s (1 worker), HAProxy %s (1 thread).",
		cpu, runtime.NumCPU(), version("uname", "-r"), runtime.Version(), version("/usr/sbin/nginx", "-v"), version("/usr/sbin/haproxy", "-v"))
}
