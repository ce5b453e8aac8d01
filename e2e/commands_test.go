//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/weir-proxy/weir/e2e/internal/origin"
	"github.com/weir-proxy/weir/e2e/internal/traces"
)

// commands are what the scripts can say beyond testscript's own words.
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"origin":       cmdOrigin,
	"requests":     cmdRequests,
	"expand":       cmdExpand,
	"status":       cmdStatus,
	"unused":       cmdUnused,
	"netns":        cmdNetns,
	"connections":  cmdConnections,
	"as-nobody":    cmdAsNobody,
	"nothing-left": cmdNothingLeft,
	"in-readme":    cmdInReadme,
}

// originsKey finds the origins of a script, by name.
type originsKey struct{}

type origins map[string]*origin.Server

// origin NAME HOST... starts a web service on one port of each host and sets
// $NAME to the port.
func cmdOrigin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: origin NAME HOST...")
	}
	s, err := origin.Start(args[1:]...)
	ts.Check(err)
	ts.Defer(func() { s.Close() })
	ts.Value(originsKey{}).(origins)[args[0]] = s
	ts.Setenv(args[0], strconv.Itoa(s.Port))
}

// requests NAME [LINE...] compares what reached an origin since the last time
// with lines such as "GET /public".
func cmdRequests(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: requests NAME [LINE...]")
	}
	s := ts.Value(originsKey{}).(origins)[args[0]]
	if s == nil {
		ts.Fatalf("no origin %s", args[0])
	}
	var got []string
	for _, r := range s.Requests() {
		got = append(got, r.Method+" "+r.Target)
	}
	s.Reset()
	if fmt.Sprint(got) != fmt.Sprint(args[1:]) {
		ts.Fatalf("the origin saw %q, not %q", got, args[1:])
	}
}

// connections NAME N: the origin has accepted that many in its life.
func cmdConnections(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: connections NAME N")
	}
	if got := ts.Value(originsKey{}).(origins)[args[0]].Conns(); strconv.Itoa(got) != args[1] {
		ts.Fatalf("the origin accepted %d connections, not %s", got, args[1])
	}
}

var variable = regexp.MustCompile(`\$\{[A-Z_]+\}`)

// expand FILE... replaces ${NAME} by the variable of the script.
func cmdExpand(ts *testscript.TestScript, neg bool, args []string) {
	for _, file := range args {
		text := variable.ReplaceAllStringFunc(ts.ReadFile(file), func(v string) string {
			value := ts.Getenv(v[2 : len(v)-1])
			if value == "" {
				ts.Fatalf("%s: %s is not set", file, v)
			}
			return value
		})
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o644))
	}
}

// status N COMMAND [ARG...] is exec for a command that must exit with status N.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, not %d (-1 is a signal)", got, want)
	}
}

// unused NAME sets $NAME to a port of 127.0.0.1 where nobody listens.
func cmdUnused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: unused NAME")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv(args[0], strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

// as-nobody N COMMAND [ARG...] is status for a command run without root.
func cmdAsNobody(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: as-nobody N COMMAND [ARG...]")
	}
	cmdStatus(ts, false, append([]string{args[0], "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"}, args[1:]...))
}

type tracesKey struct{}

// nothing-left: no program, map, pin or control group remains of what ran since the
// script began.
func cmdNothingLeft(ts *testscript.TestScript, neg bool, args []string) {
	left, err := traces.Left(ts.Value(tracesKey{}).(traces.Set))
	ts.Check(err)
	if len(left) > 0 {
		ts.Fatalf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// in-readme FILE fails unless the project's README shows the text of a file.
func cmdInReadme(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: in-readme FILE")
	}
	readme := ts.ReadFile(filepath.Join(ts.Getenv("CODE"), "../README.md"))
	if !strings.Contains(readme, ts.ReadFile(args[0])) {
		ts.Fatalf("README.md does not show what is in %s", args[0])
	}
}
