//go:build linux

package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// command is the running command: a child of this process.
type command struct {
	pid   int
	waits <-chan unix.WaitStatus // its stops, continuations and end
	log   *slog.Logger
}

// startCommand starts the command in a cgroup, as the account. It returns when the
// command's own program has begun.
func startCommand(argv []string, a account, cgroup *os.File, log *slog.Logger) (*command, error) {
	uids, err := sameIDs("/proc/self/uid_map")
	if err != nil {
		return nil, failed(err)
	}
	gids, err := sameIDs("/proc/self/gid_map")
	if err != nil {
		return nil, failed(err)
	}
	outside, err := ownNamespaces()
	if err != nil {
		return nil, failed(err)
	}
	settingsR, settingsW, err := os.Pipe()
	if err != nil {
		return nil, failedf("make pipe: %w", err)
	}
	defer settingsW.Close()
	reportR, reportW, err := os.Pipe()
	if err != nil {
		settingsR.Close()
		return nil, failedf("make pipe: %w", err)
	}
	defer reportR.Close()
	pid, err := syscall.ForkExec("/proc/self/exe", append([]string{shimName}, argv...), &syscall.ProcAttr{
		Env:   a.environment(os.Environ()),
		Files: []uintptr{0, 1, 2, settingsFD: settingsR.Fd(), reportFD: reportW.Fd()},
		Sys: &syscall.SysProcAttr{
			UseCgroupFD:                true,
			CgroupFD:                   int(cgroup.Fd()),
			Cloneflags:                 unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings:                uids,
			GidMappings:                gids,
			GidMappingsEnableSetgroups: true,
		},
	})
	settingsR.Close()
	reportW.Close() // the shim has its own; the end of that one is what we wait for
	if err != nil {
		return nil, failed(explainFork(err))
	}
	c := &command{pid: pid, log: log}
	if err := c.begin(settings{Account: a, Outside: outside}, settingsW, reportR); err != nil {
		return nil, err
	}
	return c, nil
}

func explainFork(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return fmt.Errorf("start command in a user namespace: %w: raise it: sysctl user.max_user_namespaces=1000", err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EBUSY):
		return fmt.Errorf("start command in its cgroup: %w", err)
	}
	return fmt.Errorf("start command: %w", err)
}

// begin gives the shim its settings and waits for its report, and for its end if that
// is bad.
func (c *command) begin(s settings, settingsW, reportR *os.File) error {
	waits := make(chan unix.WaitStatus)
	c.waits = waits
	go c.wait(waits)
	// Where the shim died and does not read them, the lack of a report says it.
	json.NewEncoder(settingsW).Encode(s)
	settingsW.Close()
	err := readReport(reportR)
	if err == nil {
		return nil
	}
	var last unix.WaitStatus
	for last = range waits {
	}
	if errors.Is(err, errNoReport) && last.Signaled() {
		// Interrupted on its way. That is how the command ended, then.
		ended := make(chan unix.WaitStatus, 1)
		ended <- last
		c.waits = ended
		return nil
	}
	return err
}

// wait reports what becomes of the command, and closes the channel after its end.
func (c *command) wait(waits chan<- unix.WaitStatus) {
	defer close(waits)
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(c.pid, &ws, unix.WUNTRACED|unix.WCONTINUED, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			c.log.Error("wait for command", "error", err)
			return
		}
		waits <- ws
		if ws.Exited() || ws.Signaled() {
			return
		}
	}
}

// sameIDs maps all ids that this process's user namespace has to themselves.
func sameIDs(file string) ([]syscall.SysProcIDMap, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read id mappings: %w", err)
	}
	var list []syscall.SysProcIDMap
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("read id mappings: line %q is not understood", line)
		}
		first, err1 := strconv.Atoi(f[0])
		size, err2 := strconv.Atoi(f[2])
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("read id mappings: %w", err)
		}
		list = append(list, syscall.SysProcIDMap{ContainerID: first, HostID: first, Size: size})
	}
	return list, nil
}

// resumeGrace is how long a shell that continues its job gets to reach the command
// as well, after it has reached weir.
const resumeGrace = 50 * time.Millisecond

// follow passes signals on and stops with the command until it ends.
func (c *command) follow(signals <-chan os.Signal) (Status, error) {
	var resume <-chan time.Time
	for {
		select {
		case s := <-signals:
			switch {
			case s == unix.SIGCONT:
				resume = time.After(resumeGrace)
			case !fromTerminal(s):
				c.send(s.(unix.Signal))
			}
		case <-resume:
			if resume = nil; c.stopped() {
				c.send(unix.SIGCONT) // it went to weir alone
			}
		case ws, ok := <-c.waits:
			switch {
			case !ok:
				return Status{}, failed(errors.New("the command got lost"))
			case ws.Exited():
				return Status{Code: ws.ExitStatus()}, nil
			case ws.Signaled():
				return Status{Signal: ws.Signal()}, nil
			case ws.Stopped():
				if hasTerminal() { // else nobody who does job control is watching
					if err := stopSelf(c.stopped); err != nil {
						c.log.Error("stop with the command", "error", err)
					}
					resume = time.After(resumeGrace)
				}
			case ws.Continued(): // what stops it from now on is to stay so
				resume = nil
			}
		}
	}
}

func (c *command) send(s unix.Signal) {
	// Not reaped by anybody else, so the id is still its own.
	if err := unix.Kill(c.pid, s); err != nil && !errors.Is(err, unix.ESRCH) {
		c.log.Error("pass signal on to command", "signal", s, "error", err)
	}
}

// stopped reports whether the command is stopped.
func (c *command) stopped() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.pid))
	if err != nil {
		return false
	}
	// pid (comm) state: comm may hold anything.
	i := strings.LastIndex(string(stat), ") ")
	return i >= 0 && i+2 < len(stat) && stat[i+2] == 'T'
}

func hasTerminal() bool {
	fd, err := openTerminal()
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}
