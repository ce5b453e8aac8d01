//go:build linux

package run

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// session is a process group in the foreground of a terminal of its own.
type session struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File

	mu   sync.Mutex
	more *sync.Cond
	out  []byte
	eof  bool
}

// onTerminal starts a command on a new terminal.
func onTerminal(t *testing.T, cmd *exec.Cmd) *session {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	s := &session{t: t, cmd: cmd, master: master}
	s.more = sync.NewCond(&s.mu)
	go s.read()
	t.Cleanup(func() {
		master.Close() // hangs up
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return s
}

func (s *session) read() {
	buf := make([]byte, 4096)
	for {
		n, err := s.master.Read(buf)
		s.mu.Lock()
		s.out = append(s.out, buf[:n]...)
		s.eof = s.eof || err != nil
		s.more.Broadcast()
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// expect waits until the terminal shows what matches, after what was matched before, and
// returns it and its groups.
func (s *session) expect(pattern string) []string {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	alarm := time.AfterFunc(patience, s.more.Broadcast)
	defer alarm.Stop()
	end := time.Now().Add(patience)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if m := re.FindSubmatchIndex(s.out); m != nil {
			var groups []string
			for i := 0; i < len(m); i += 2 {
				groups = append(groups, string(s.out[m[i]:m[i+1]]))
			}
			s.out = s.out[m[1]:]
			return groups
		}
		if s.eof || time.Now().After(end) {
			s.t.Fatalf("the terminal does not show %q, but %q", pattern, s.out)
		}
		s.more.Wait()
	}
}

// typeIn types into the terminal.
func (s *session) typeIn(text string) {
	s.t.Helper()
	if _, err := s.master.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// status waits for the end of the process.
func (s *session) status() int {
	s.t.Helper()
	alarm := time.AfterFunc(patience, func() { s.cmd.Process.Kill() })
	defer alarm.Stop()
	s.cmd.Wait()
	return statusOf(s.cmd.ProcessState)
}
